"""The table that a chain ends with: every score beside its yardsticks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from contracts.console import command
from contracts.errors import UserError
from evaluation.evaluate import NAMES, REPORTS

# metric -> (label, factor, unit of the table, what it is)
_ROWS = (
    ("kernel_distance", "kernel distance", 1e3, "x 1e-3"),
    ("fa_histogram_distance", "FA histogram", 1e3, "x 1e-3"),
    ("md_histogram_distance", "MD histogram", 1e6, "um2/s"),
    ("fa_mean_map_error", "FA mean map", 1e3, "x 1e-3"),
    ("md_mean_map_error", "MD mean map", 1e6, "um2/s"),
    ("fa_region_error", "FA regions", 1e3, "x 1e-3"),
    ("md_region_error", "MD regions", 1e6, "um2/s"),
    ("fa_ms_ssim", "MS-SSIM of FA pairs", 1.0, ""),
    ("fa_age_slope", "FA per decade", 1e3, "x 1e-3"),
    ("md_age_slope", "MD per decade", 1e6, "um2/s"),
)


def table(reports: Sequence[dict[str, Any]]) -> str:
    """A Markdown table per generator; distances are to the held-out real subjects."""
    return "\n\n".join(_one(report) for report in reports)


def _one(report: dict[str, Any]) -> str:
    lines = [
        f"{report['name']}: {report['n_synthetic']} generated volumes, "
        f"{report['n_real_test']} real test subjects ({report['group']} group), "
        f"{report['steps']} steps, 95 % interval in brackets",
        "",
        "| score | generated | Gaussian baseline | real (train) | unit |",
        "|---|---|---|---|---|",
    ]
    for key, label, factor, unit in _ROWS:
        sets = report["metrics"].get(key)
        if sets is None:
            continue
        floor = sets.get("real_test", sets["real_train"])
        name = f"{label} (real: test)" if "real_test" in sets else label
        cells = [_cell(s, factor) for s in (sets["synthetic"], sets["gaussian"], floor)]
        lines.append(f"| {name} | {' | '.join(cells)} | {unit} |")
    share = report["copy_share"]
    lines.append(
        f"| near copies of a training subject | {100 * share['synthetic']:.0f} "
        f"| {100 * share['gaussian']:.0f} | 5 expected | % |"
    )
    return "\n".join(lines)


def _cell(interval: dict[str, float], factor: float) -> str:
    value, low, high = (factor * interval[key] for key in ("value", "low", "high"))
    digits = 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@command()
def main() -> None:
    """Print the scores of the last chain, where its pictures are, and what to do next."""
    paths = [REPORTS / f"evaluate-{name}.json" for name in NAMES]
    reports = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not reports:
        raise UserError(f"no evaluations in {REPORTS}: run `make demo` first")
    click.echo(table(reports))
    click.echo("\nPictures (generated next to real maps):")
    for path in sorted(REPORTS.glob("gallery-*.png")):
        click.echo(f"  {path}")
    click.echo(
        "\nNext:\n"
        "  make tune    search how to adapt (bi-level)\n"
        "  make ui      compare the runs in MLflow\n"
        "  make serve   serve samples of the champions"
    )


if __name__ == "__main__":
    main()
