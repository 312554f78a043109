"""Newcomers: simulated people whom no split of the cohort knows, to compare generators with.

The demo's cohort has three dozen test subjects. What these happen to have in common moves every
contestant's distance from them; a simulated cohort has as many new people as one asks for.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import params
from contracts.errors import UserError

if TYPE_CHECKING:
    from cohort.subjects import Subjects

_GROUP, _PART = "base", "test"


def newcomers(count: int, work: Path) -> Subjects:
    """People of the base group of the cohort that params.yaml describes, from another seed.

    Parameters
    ----------
    count : how many.
    work : what was simulated is kept here.

    Raises
    ------
    UserError : if that cohort is not simulated.
    """
    from cohort import subjects
    from cohort.derivatives import Derivatives
    from cohort.derive import DeriveSettings, derive
    from cohort.simulate import SimulateSettings, simulate
    from cohort.split import Manifest
    from contracts.paths import BIDS

    recipe, deriving = (
        params.load(SimulateSettings, "simulate"),
        params.load(DeriveSettings, "derive"),
    )
    try:
        within = Path(deriving.source).relative_to(BIDS)
    except ValueError:
        raise UserError(
            f"derive.source is {deriving.source}: expected a simulated cohort in {BIDS}, real "
            "people cannot be made; leave --newcomers out"
        ) from None
    recipe = replace(recipe, seed=recipe.seed + 1, base_subjects=count, target_subjects=0)
    bids, maps, split = work / "bids", work / "derivatives", work / "split.json"
    simulate(recipe, bids, work)
    # New people have the same IDs as the cohort's, whose hand-drawn masks would be taken.
    derive(replace(deriving, source=str(bids / within)), maps, work, work / "no-masks")
    ids = tuple(p.id for p in Derivatives.open(maps).participants)
    manifest = Manifest(recipe.seed, {_GROUP: {"train": (), "val": (), _PART: ids}})
    split.write_text(json.dumps(manifest.to_json()))
    return subjects.load(maps, split, _GROUP, _PART)
