"""Which table of the docs shows which numbers of which result file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.result import Result, Row


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the docs.

    Parameters
    ----------
    measurement : its result file is `results/<measurement>.json`, see `benchmarks.measurements`.
    body : makes the table, as Markdown, of the result.
    """

    measurement: str
    body: Callable[[Result], str]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    head : its heading, with the unit.
    key : of a row's value; dots lead into nested ones.
    spec : format of a number, as `format` takes it.
    factor : by which numbers are multiplied, where the heading names a smaller unit.
    """

    head: str
    key: str
    spec: str = ""
    factor: float = 1.0


def markdown(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; intervals stand in brackets, what a row lacks is left empty."""
    lines = [[c.head for c in columns], ["---"] * len(columns)]
    lines += [[_cell(_value(row, c.key), c) for c in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(row: Mapping[str, Any], key: str) -> Any:
    found: Any = row
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _cell(value: Any, column: Column) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        shown, low, high = (_cell(value[k], column) for k in ("value", "low", "high"))
        return f"{shown} [{low}, {high}]"
    if isinstance(value, str):
        return value
    # A count stays an integer.
    return format(value if column.factor == 1 else column.factor * value, column.spec)


# Differences from real subjects, as `benchmarks.scores` has them.
SCORES = (
    Column("AUC of texture", "scores.classifier_auc", ".2f"),
    Column("boundary (d)", "scores.boundary_roughness", ".1f"),
    Column("FA grain (d)", "scores.fa_grain", ".1f"),
    Column("MD grain (d)", "scores.md_grain", ".1f"),
    Column("holes in tracts (d)", "scores.tract_holes", ".1f"),
    Column("in pieces (%)", "scores.pieces", ".0f", 100),
    Column("kernel distance (x 1e-3)", "scores.kernel_distance", ".1f", 1e3),
    Column("FA histogram (x 1e-3)", "scores.fa_histogram", ".1f", 1e3),
    Column("MD histogram (um2/s)", "scores.md_histogram", ".1f"),
    Column("spectrum (dB)", "scores.spectrum_error", ".2f"),
    Column("slice coherence, most unlike", "scores.slice_coherence", ".2f"),
    Column("age error (years)", "scores.adherence", ".1f"),
    Column("near training (%)", "scores.copy_share", ".1f"),
    Column("coherent parts", "scores.coherent_parts"),
)
CONTEST = (
    Column("contestant", "name"),
    Column("seed", "seed"),
    Column("evaluations", "evaluations"),
    Column("M parameters", "parameters", ".2f", 1e-6),
    Column("steps", "steps"),
    Column("training CPU s", "train_cpu_s", ".0f"),
    Column("CPU s per volume", "sample_cpu_s", ".2f"),
    *SCORES,
)
RATIOS = (
    Column("kernel distance of", "first"),
    Column("over that of", "second"),
    Column("ratio", "ratio", ".2g"),
    Column("trainings", "trainings"),
)
ABLATION = (Column("left out", "name"), Column("steps", "steps"), *SCORES)
PEFT = (
    Column("adapted by", "name"),
    Column("abs. d of FA, changed regions", "scores.d_fa", ".2f"),
    Column("of MD", "scores.d_md", ".2f"),
    Column("both, other regions", "scores.d_unchanged", ".2f"),
    Column("correlation with the truth", "scores.correlation", ".2f"),
    Column("regional distance", "scores.regional_distance", ".2f"),
    Column("kernel distance x 1000", "scores.kernel_distance", ".1f", 1000),
    Column("copy share", "scores.copy_share", ".2f"),
    Column("trained numbers", "trainable"),
    Column("file, kB", "bytes", ".0f", 1e-3),
    Column("training, s", "seconds", ".0f"),
    Column("kept step", "kept_step", ".0f"),
    Column("outer objective, 5 sampling seeds", "objective", ".2f"),
)
SAMPLING_COSTS = (
    Column("", "dim"),
    Column("evaluations", "evaluations"),
    Column("CPU s per volume", "sample_cpu_s", ".3g"),
    Column("1000 evaluations of the network alone, over it", "thousand_over_sample", ".3g"),
)
STEP_COSTS = (
    Column("", "dim"),
    Column("batch", "batch"),
    Column("CPU s per image", "monai_cpu_s", ".2g"),
    Column("over a step of ours", "monai_over_ours", ".2g"),
)
MEMORY = (
    Column("", "dim"),
    Column("mm", "mm", "g"),
    Column("method", "method"),
    Column("recompute", "recompute"),
    Column("peak, MiB", "peak_mib", ".0f"),
    Column("over full without recompute", "of_full", ".2f"),
    Column("told by the planner, over the peak", "told_over_peak", ".2f"),
    Column("step, over full with recompute", "step_of_full", ".2f"),
)
SCALING = (
    Column("grid", "grid"),
    Column("subjects", "subjects"),
    Column("preparation, CPU s per subject", "prepare_seconds_per_volume", ".2f"),
    Column("step of 2 volumes, CPU s", "step_seconds", ".2f"),
    Column("sample, 8 evaluations, CPU s", "sample_seconds", ".2f"),
    Column("peak memory, MiB", "peak_mib", ".0f"),
)
PAPER = (
    Column("grid", "grid"),
    Column("M parameters", "parameters", ".1f", 1e-6),
    Column("TFLOP per evaluation", "tflop", ".3f"),
    Column("subjects", "subjects"),
    Column("disk, GB", "disk_bytes", ".0f", 1e-9),
    Column("preparation, core hours", "preparation_hours", ".1f"),
    Column("training, GPU hours", "gpu_hours", ".2f"),
    Column("each subject is seen, times", "seen", ".0f"),
)
GPU_STEPS = (
    Column("volumes", "case"),
    Column("step", "variant"),
    Column("batch", "batch"),
    Column("ms per step", "step_ms", ".1f"),
    Column("memory, GiB", "gib", ".1f"),
    Column("", "left_out"),
)
GPU_SAMPLES = (
    Column("volumes", "case"),
    Column("evaluations", "evaluations"),
    Column("seconds per volume", "sample_s", ".2f"),
)
SIMILARITY = (
    Column("MS-SSIM of pairs", "metric"),
    Column("pairs per second", "pairs_per_second", ".0f"),
    Column("MONAI's time over ours", "monai_over_ours", ".0f"),
    Column("largest difference", "largest_difference", ".0e"),
)
AUDITS = (
    Column("volumes a side", "volumes"),
    Column("wall seconds", "wall_seconds", ".0f"),
    Column("memory of the volumes, MiB", "volumes_mib", ".0f"),
    Column("further memory, MiB", "further_mib", ".0f"),
)
NEIGHBOURS = (
    Column("OMP_WAIT_POLICY", "policy"),
    Column("steps per second, one alone", "alone", ".1f"),
    Column("two side by side, together", "together", ".1f"),
    Column("together over alone", "ratio", ".2f"),
)


def _rows(columns: Sequence[Column]) -> Callable[[Result], str]:
    """All rows; a column that is empty in each of them is left out."""
    return lambda result: _without_empty(columns, result.rows)


def _measure(columns: Sequence[Column], measure: str) -> Callable[[Result], str]:
    """The rows of one kind, where a file has several."""

    def body(result: Result) -> str:
        return _without_empty(columns, [r for r in result.rows if r["measure"] == measure])

    return body


def _without_empty(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    shown = [c for c in columns if any(_value(row, c.key) is not None for row in rows)]
    return markdown(shown, rows)


def _ratios(result: Result) -> str:
    from benchmarks.scores import ratios

    return markdown(RATIOS, ratios(result.rows))


def _demo_verdicts(result: Result) -> str:
    return _printed_by_demo(result.rows)[0]


def _demo_scores(result: Result) -> str:
    """The scores of the 3D base generator, with the sentence above them."""
    chosen = [row for row in result.rows if row["name"] == "base-3d"]
    return "\n\n".join(_printed_by_demo(chosen)[1:])


def _printed_by_demo(reports: Sequence[Row]) -> list[str]:
    """What `make demo` prints, in paragraphs: verdicts, then a sentence and a table of each."""
    from evaluation.summary import table

    return table(reports).split("\n\n")


REGISTRATION = (
    Column("engine", "engine"),
    Column("CPU s", "cpu_seconds", ".2f"),
    Column("template, CPU s per subject", "template_cpu_seconds", ".1f"),
    Column("FA left", "fa_left", ".3f"),
    Column("MD left", "md_left", ".3f"),
    Column("distance to boundary left", "distance_left", ".3f"),
    Column("least Jacobian", "least_jacobian", ".2f"),
    Column("inverse error (voxels)", "inverse_error", ".4f"),
)

SEARCH = (
    Column("seed", "seed"),
    Column("chosen", "chosen"),
    Column("trained", "trained", ","),
    Column("distance, new seeds", "score", ".3f"),
    Column("less gain only", "less_gain", ".3f"),
    Column("less median by hand", "less_hand_picked", ".3f"),
    Column("hypervolume", "hypervolume", ".4f"),
    Column("at random", "hypervolume_random", ".4f"),
    Column("best of trials", "best", ".3f"),
    Column("at random", "best_random", ".3f"),
    Column("minutes", "minutes", ".1f"),
)

SCHEDULING = (
    Column("slots", "slots"),
    Column("trials", "trials"),
    Column("seconds of each", "seconds", "g"),
    Column("busy", "busy", ".3f"),
    Column("driver's memory (MB)", "driver_mb", ".0f"),
)

TABLES: dict[str, Table] = {
    "demo-verdicts": Table("demo", _demo_verdicts),
    "demo-scores": Table("demo", _demo_scores),
    "generators": Table("generators", _rows(CONTEST)),
    "generators-ratios": Table("generators-repeats", _ratios),
    "generators-new-people": Table("generators-new-people", _rows(CONTEST)),
    "generators-hour": Table("generators-hour", _rows(CONTEST)),
    "generators-ddpm": Table("generators-ddpm", _rows(CONTEST)),
    "generators-mosaics": Table("generators-mosaics", _rows(CONTEST)),
    "generators-guidance": Table("generators-guidance", _rows(CONTEST)),
    "ablation-untrained": Table("ablation-untrained", _rows(ABLATION)),
    "ablation-trained": Table("ablation-trained", _rows(ABLATION)),
    "peft-2d": Table("peft-2d", _rows(PEFT)),
    "peft-3d": Table("peft-3d", _rows(PEFT)),
    "sampling-costs": Table("costs", _measure(SAMPLING_COSTS, "sampling")),
    "step-costs": Table("costs", _measure(STEP_COSTS, "training step")),
    "memory": Table("memory", _rows(MEMORY)),
    "scaling": Table("scaling", _rows(SCALING)),
    "registration": Table("registration", _rows(REGISTRATION)),
    "paper": Table("paper", _rows(PAPER)),
    "gpu-steps": Table("gpu", _measure(GPU_STEPS, "training step")),
    "gpu-samples": Table("gpu", _measure(GPU_SAMPLES, "sampling")),
    "search": Table("search", _rows(SEARCH)),
    "scheduling": Table("scheduling", _rows(SCHEDULING)),
    "neighbours": Table("neighbours", _rows(NEIGHBOURS)),
    "judge-similarity": Table("judge", _measure(SIMILARITY, "ms-ssim")),
    "judge-audits": Table("judge", _measure(AUDITS, "audit")),
}
