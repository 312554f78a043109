"""The summary that a run of the chain ends with: verdicts and main scores of all generators."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from contracts.console import command
from contracts.errors import UserError
from contracts.paths import REPORTS
from evaluation.evaluate import NAMES
from evaluation.results import QUESTIONS

# The findings that are shown, and how the table calls them.
_ROWS = {
    "classifier_auc": "AUC of a classifier of local texture (0.5: alike)",
    "grain_coupling": "correlation of FA and MD in fine detail (d)",
    "md_edge_grain": "fine detail of MD at the boundary (d)",
    "tract_holes": "holes in tracts (d)",
    "boundary_roughness": "roughness of the boundary (d)",
    "kernel_distance": "kernel distance (x 1e-3)",
    "fa_histogram": "FA histogram distance (x 1e-3)",
    "md_histogram": "MD histogram distance (um2/s)",
    "fa_regions": "FA, worst region (d)",
    "md_regions": "MD, worst region (d)",
    "coupling": "correlation of FA and MD in white matter (d)",
    "tissues": "volumes of tissues, worst (d)",
    "fa_ms_ssim": "similarity of pairs (MS-SSIM x 1e-3)",
    "adherence": "error of age read from maps (years)",
    "copy_share": "nearer to a training subject than 95 % of new people (%)",
    "age_error": "age learnt from synthetic, tested on real: error (years)",
}
_YARDSTICKS = ("untrained", "gaussian", "real", "copies")
_FACTORS = {"kernel_distance": 1e3, "fa_histogram": 1e3, "fa_ms_ssim": 1e3}


def table(reports: Sequence[dict[str, Any]]) -> str:
    """Returns Markdown: the verdicts of all generators, then a table of scores for each.

    Parameters
    ----------
    reports : contents of evaluate-<name>.json, see `evaluation.evaluate.flat_scores`.
    """
    lines = [
        "| generator | n | " + " | ".join(QUESTIONS) + " |",
        "|---" * (2 + len(QUESTIONS)) + "|",
    ]
    for report in reports:
        n = report["n"]
        verdicts = " | ".join(report["verdicts"][q] for q in QUESTIONS)
        lines.append(f"| {report['name']} | {n['synthetic']} against {n['test']} | {verdicts} |")
    return "\n\n".join(["\n".join(lines), *(_score_table(report) for report in reports)])


def _score_table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['name']}: {report['n']['synthetic']} generated volumes, "
        f"{report['n']['test']} real test subjects ({report['group']} group), "
        f"{report['steps']} steps; difference from real (0 means none, unless said otherwise), "
        "95 % interval in brackets",
        "",
        "| score | generated | without the network | Gaussian baseline | real (val) "
        "| copies of train | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, label in _ROWS.items():
        found = report["metrics"].get(key)
        if found is None:
            continue
        factor = _FACTORS.get(key, 1.0)
        value, low, high = (_number(factor * found[k]) for k in ("value", "low", "high"))
        yardsticks = [_number(factor * found[k]) if k in found else "" for k in _YARDSTICKS]
        lines.append(
            f"| {label} | {value} [{low}, {high}] | {' | '.join(yardsticks)} | {found['verdict']} |"
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.{2 if abs(value) < 10 else 1}f}"


@command()
def main() -> None:
    """Print the scores of the last run, where its pictures are, and what to do next."""
    paths = [REPORTS / f"evaluate-{name}.json" for name in NAMES]
    reports = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not reports:
        raise UserError(f"no evaluations in {REPORTS}: run `make demo` first")
    click.echo(table(reports))
    click.echo("\nReports (verdicts in words, all numbers) and pictures (generated next to real):")
    for path in sorted([*REPORTS.glob("report-*.html"), *REPORTS.glob("gallery-*.png")]):
        click.echo(f"  {path}")
    click.echo(
        "\nNext:\n"
        "  make tune    search how to adapt (bi-level)\n"
        "  make ui      compare the runs in MLflow\n"
        "  make serve   serve samples of the champions"
    )


if __name__ == "__main__":
    main()
