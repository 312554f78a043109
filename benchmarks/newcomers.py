"""People that no split knows, to judge generators by: a simulated cohort has as many as one likes.

The test part of a demo's cohort has three dozen; what they happen to have in common moves every
contestant's distance from them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import params
from contracts.errors import UserError

if TYPE_CHECKING:
    from training.dataset import Subjects

_GROUP, _PART = "base", "test"


def newcomers(count: int, work: Path) -> Subjects:
    """So many people of the base group of the cohort of params.yaml, from another seed.

    Parameters
    ----------
    work : what was simulated is kept here.

    Raises
    ------
    UserError : if that cohort is not simulated.
    """
    from cohort.derivatives import Derivatives
    from cohort.derive import Derive, derive
    from cohort.simulate import Simulate, simulate
    from cohort.split import Manifest
    from contracts.paths import BIDS
    from training import dataset

    recipe, deriving = params.load(Simulate, "simulate"), params.load(Derive, "derive")
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
    # Masks drawn by hand are of the cohort's own people, who have the same names.
    derive(replace(deriving, source=str(bids / within)), maps, work, work / "no-masks")
    ids = tuple(p.id for p in Derivatives.open(maps).participants)
    manifest = Manifest(recipe.seed, {_GROUP: {"train": (), "val": (), _PART: ids}})
    split.write_text(json.dumps(manifest.to_json()))
    return dataset.load(maps, split, _GROUP, _PART)
