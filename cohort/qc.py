"""Quality of each scan's derivatives, as a table of numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort.registration import MniTemplate

# Someone should look at a scan outside these limits. Five real scans of three vendors and simulated
# brains of 18 to 88 years lie well inside.
MIN_WHITE_R = 0.5
MIN_COVERAGE = 0.85
MAX_HIGH_FA = 0.01
FA_RANGE = (0.12, 0.35)
MD_RANGE = (0.65e-3, 1.6e-3)
HIGH_FA = 0.9


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known of the quality of one scan: one row of qc.tsv.

    Parameters
    ----------
    participant_id : scan id.
    status : ``pass``; ``flag``, if the maps were written but someone should look at them;
        ``failed``, if they could not be made; ``left out``, if the scan has no usable age, sex or
        group.
    reason : why the status is not ``pass``.
    white_r : correlation of FA with the template's white matter inside the mask.
    coverage : share of the template's brain that the mask holds.
    mask_ml : volume of the mask in the working space.
    high_fa : share of the mask with FA above 0.9.
    fa, md, white_fa : means in the mask (MD in mm2/s) and, for FA, in white matter.
    note : what was done differently for this scan.
    """

    participant_id: str
    status: str
    reason: str = ""
    white_r: float = float("nan")
    coverage: float = float("nan")
    mask_ml: float = float("nan")
    high_fa: float = float("nan")
    fa: float = float("nan")
    md: float = float("nan")
    white_fa: float = float("nan")
    note: str = ""


def assess(
    scan: str,
    fa: NDArray[np.float32],
    md: NDArray[np.float32],
    mask: NDArray[np.bool_],
    target: MniTemplate,
    note: str,
) -> Quality:
    """Measure the quality of maps on the grid of `target`.

    Parameters
    ----------
    scan : scan id.
    fa, md, mask : (X, Y, Z), MD in mm2/s.
    target : the template that the scan was registered to.
    note : what was done differently for this scan.
    """
    if not np.any(mask & target.brain):
        return Quality(scan, "flag", "the mask lies outside the template's brain", note=note)
    white = target.white > 0.5
    white_r = float(np.corrcoef(fa[mask], target.white[mask])[0, 1])
    coverage = float(np.count_nonzero(mask & target.brain) / np.count_nonzero(target.brain))
    high_fa = float(np.mean(fa[mask] > HIGH_FA))
    mean_fa, mean_md = float(fa[mask].mean()), float(md[mask].mean())
    reasons = [
        text
        for wrong, text in (
            (white_r < MIN_WHITE_R, "FA does not follow the template's white matter"),
            (coverage < MIN_COVERAGE, "part of the brain is missing"),
            (high_fa > MAX_HIGH_FA, "many voxels of FA > 0.9: noise or a mask too wide"),
            (not FA_RANGE[0] <= mean_fa <= FA_RANGE[1], "unusual mean FA"),
            (not MD_RANGE[0] <= mean_md <= MD_RANGE[1], "unusual mean MD"),
        )
        if wrong
    ]
    return Quality(
        participant_id=scan,
        status="flag" if reasons else "pass",
        reason="; ".join(reasons),
        white_r=white_r,
        coverage=coverage,
        mask_ml=float(np.count_nonzero(mask) * target.space.voxel_ml),
        high_fa=high_fa,
        fa=mean_fa,
        md=mean_md,
        white_fa=float(fa[mask & white].mean()) if np.any(mask & white) else float("nan"),
        note=note,
    )


def write(path: Path, rows: Iterable[Quality]) -> None:
    """Write the table, sorted by participant."""
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(
            stream, [f.name for f in fields(Quality)], delimiter="\t", lineterminator="\n"
        )
        table.writeheader()
        for row in sorted(rows, key=lambda r: r.participant_id):
            table.writerow({key: _cell(value) for key, value in asdict(row).items()})


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value.replace("\t", " ").replace("\n", " ") or "n/a"
    return "n/a" if np.isnan(value) else f"{value:.4g}"
