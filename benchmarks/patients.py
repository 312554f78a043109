"""Simulated patients, and how near volumes come to them where their disease changes the brain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contracts import paths
from contracts.errors import UserError

if TYPE_CHECKING:
    from cohort.subjects import Subjects
    from evaluation.regional_means import RegionalMeans
    from models.generator import Generator
    from training.adapt_data import AdaptData

# Seeds of the volumes: no stage and no other benchmark samples from these.
_FIRST_SEED = 700_000
_EVALUATIONS = 4
# Regions whose true difference is larger, in standard deviations, count as changed.
_CHANGED = 0.5


@dataclass(frozen=True, slots=True)
class Patients:
    """Patients of the target group, and the truth about their disease.

    Parameters
    ----------
    data : whom the base is adapted to, with the validation subjects.
    others : patients that are in neither: the real volumes that all are compared with.
    regions : in standard deviations of healthy people of the base group.
    truth : (2, R), true differences of FA and MD by the disease, in standard deviations.
    """

    data: AdaptData
    others: Subjects
    regions: RegionalMeans
    truth: NDArray[np.float64]

    @classmethod
    def load(cls, subjects: int, table: Path) -> Patients:
        """Takes the first training subjects; the remaining ones join the test subjects.

        Parameters
        ----------
        table : of the true differences.

        Raises
        ------
        UserError : if there are fewer training subjects, or there is no truth.
        """
        from cohort import subjects as cohort_subjects
        from cohort.derivatives import Derivatives
        from cohort.split import Manifest
        from evaluation.regional_means import RegionalMeans
        from training.adapt_data import AdaptData

        cohort, split = Derivatives.open(paths.DERIVATIVES), Manifest.read(paths.SPLIT)
        train, test = (split.subjects("target", part) for part in ("train", "test"))
        if len(train) < subjects:
            raise UserError(
                f"expected {subjects} training subjects in the target group, found {len(train)}: "
                "ask for fewer with --subjects"
            )
        atlas = cohort.atlas()
        if atlas is None or not table.exists():
            raise UserError(
                f"expected an atlas in {paths.DERIVATIVES} and the truth in {table}: simulate "
                "patients with simulate.disease_effect above 0, then `make demo`"
            )
        base = cohort_subjects.load(paths.DERIVATIVES, paths.SPLIT, "base", "train")
        return cls(
            AdaptData.part(paths.DERIVATIVES, paths.SPLIT, train[:subjects]),
            cohort_subjects.SubjectFiles.of(cohort, [*test, *train[subjects:]]).load(),
            RegionalMeans.of(atlas[0], base.volumes, base.conditions),
            _truth(table, atlas[1]),
        )

    def samples(self, generator: Generator) -> NDArray[np.float32]:
        """Returns a volume at the age and sex of each of the others."""
        seeds = [_FIRST_SEED + i for i in range(len(self.others.ids))]
        return generator.sample(self.others.conditions, seeds, _EVALUATIONS)

    def scores(
        self, volumes: NDArray[np.float32], gain: NDArray[np.float32] | None
    ) -> dict[str, float]:
        """Returns the scores of volumes.

        Parameters
        ----------
        gain : volumes of the base with the site's gain alone, from the same seeds; None: these.
        """
        from contracts.maps import MAPS
        from evaluation.block_features import block_features, standardised
        from evaluation.copy_share import copy_share
        from evaluation.kernel_distance import kernel_distance, median_distance

        train = self.data.train
        d, changed = self.regions.differences(volumes, self.others.volumes), self.changed
        found = {
            "d_fa": float(np.abs(d[0][changed[0]]).mean()),
            "d_md": float(np.abs(d[1][changed[1]]).mean()),
            "d_unchanged": float(np.abs(d[~changed]).mean()),
            "regional_distance": self.regions.distance(volumes, self.others.volumes),
        }
        if gain is not None:
            made = self.regions.differences(volumes, gain)
            found["correlation"] = float(np.corrcoef(made.ravel(), self.truth.ravel())[0, 1])
        sets = [
            block_features(v[:, :2], train.space, MAPS)
            for v in (volumes, self.others.volumes, train.volumes)
        ]
        made, real, known = (standardised(values, sets[-1]) for values in sets)
        first = (np.arange(len(made) + len(real)) < len(made)).astype(np.float64)[None]
        distance = kernel_distance(np.concatenate([made, real]), median_distance(known))
        found["kernel_distance"] = float(distance(first, 1 - first)[0, 0])
        found["copy_share"] = copy_share(made, real, known)
        return found

    @property
    def changed(self) -> NDArray[np.bool_]:
        """The regions that the disease changes, (2, R) for FA and MD."""
        return abs(self.truth) > _CHANGED


def _truth(table: Path, names: Mapping[int, str]) -> NDArray[np.float64]:
    """Returns the true differences of FA and MD in regions sorted by label, (2, R)."""
    from cohort.simulation import disease_truth

    known = {(effect.map, effect.region): effect.d for effect in disease_truth.read(table)}
    rows = [[known.get((name, names[k]), 0.0) for k in sorted(names)] for name in ("fa", "md")]
    return np.array(rows)
