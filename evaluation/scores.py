"""All scores of one set of volumes against real held-out subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MapSpec
from evaluation import anatomy, distance, diversity
from evaluation.features import FeatureSpace, to_network
from evaluation.interval import Interval, Rows, jackknife, two_sample
from evaluation.privacy import copy_share

Array = NDArray[np.float32]

_PAIRS = 64


@dataclass(frozen=True, slots=True)
class Cohort:
    """A set of volumes.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z), physical units.
    conditions : age and sex of each.
    """

    volumes: Array
    conditions: Sequence[Condition]


class Judge:
    """Scores sets of volumes against real held-out subjects.

    Parameters
    ----------
    train, test : real subjects of one group; `train` fixes the features and tells copies.
    atlas : labels and the regions' names; None scores no regions.
    """

    def __init__(
        self,
        train: Cohort,
        test: Cohort,
        maps: tuple[MapSpec, ...],
        atlas: tuple[NDArray[np.int32], dict[int, str]] | None,
    ) -> None:
        self.maps = maps
        self.test = test
        self._features = FeatureSpace.fit(to_network(train.volumes, maps))
        self._train_points = self._features(to_network(train.volumes, maps))
        self._test_points = self._features(to_network(test.volumes, maps))
        self._md = [m.name for m in maps].index("md")
        fa = [m.name for m in maps].index("fa")
        self.white = anatomy.white_matter(train.volumes[:, fa])
        self._inside: NDArray[np.bool_] = np.any(distance.brain(test.volumes, self._md), axis=0)
        self._atlas = atlas

    def scores(self, candidate: Cohort) -> dict[str, Interval]:
        """Every score of a set; names end in the unit where there is one."""
        return {
            "kernel_distance": self._kernel(candidate),
            **self._maps(candidate),
            "fa_ms_ssim": diversity.ms_ssim(candidate.volumes[:, 0], self.maps[0].maximum, _PAIRS),
        }

    def scores_of_test(self) -> dict[str, Interval]:
        """The scores that describe one set by itself, of the real held-out subjects."""
        own = self.scores(self.test)
        return {name: own[name] for name in own if name.endswith(("age_slope", "ms_ssim"))}

    def copy_share(self, candidate: Cohort) -> float:
        """See `evaluation.privacy.copy_share`."""
        points = self._features(to_network(candidate.volumes, self.maps))
        return copy_share(points, self._test_points, self._train_points)

    def _kernel(self, candidate: Cohort) -> Interval:
        width = self._features.bandwidth
        points = self._features(to_network(candidate.volumes, self.maps))
        a = distance.kernel_matrix(points, points, width)
        b = distance.kernel_matrix(self._test_points, self._test_points, width)
        between = distance.kernel_matrix(points, self._test_points, width)

        def statistic(i: Rows, j: Rows) -> float:
            return distance.discrepancy(a[np.ix_(i, i)], b[np.ix_(j, j)], between[np.ix_(i, j)])

        return jackknife(statistic, len(points), len(self._test_points))

    def _maps(self, candidate: Cohort) -> dict[str, Interval]:
        inside = distance.brain(candidate.volumes, self._md)
        real_inside = distance.brain(self.test.volumes, self._md)
        out: dict[str, Interval] = {}
        for k, spec in enumerate(self.maps):
            made, real = candidate.volumes[:, k], self.test.volumes[:, k]
            out[f"{spec.name}_histogram_distance"] = two_sample(
                partial(distance.histogram_distance, maximum=spec.maximum),
                distance.histograms(made, inside, spec.maximum),
                distance.histograms(real, real_inside, spec.maximum),
            )
            out[f"{spec.name}_mean_map_error"] = two_sample(
                distance.mean_map_error, made[:, self._inside], real[:, self._inside]
            )
            if self._atlas is not None:
                labels, names = self._atlas
                regions = [anatomy.region_means(v, labels, sorted(names)) for v in (made, real)]
                out[f"{spec.name}_region_error"] = two_sample(distance.mean_map_error, *regions)
            white = made[:, self.white].mean(axis=1, dtype=np.float64)
            out[f"{spec.name}_age_slope"] = self._age_slope(white, candidate.conditions)
        return out

    @staticmethod
    def _age_slope(values: NDArray[np.float64], conditions: Sequence[Condition]) -> Interval:
        def statistic(i: Rows, _: Rows) -> float:
            return anatomy.age_slope(values[i], [conditions[k] for k in i])

        return jackknife(statistic, len(values), 0)
