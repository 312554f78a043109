"""The target group as the adapters of one base see it: computed once, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.generator import Generator
from models.prior.group import displacements, with_fitted_shift, with_kept_gain
from models.prior.prior import Prior
from training.adapt_data import AdaptData
from training.dataset import TrainingImages


@dataclass(frozen=True, slots=True)
class AdaptGroup:
    """What an adapter's training starts from.

    Parameters
    ----------
    prior : of the base, with the group's site gain and shift of the mean as far as they were asked
        for.
    train, val : the images of the group's subjects.
    """

    prior: Prior
    train: TrainingImages
    val: TrainingImages

    @classmethod
    def of(
        cls,
        base: Generator,
        data: AdaptData,
        site_gain: bool,
        mean_shift: bool,
        kept: Path,
        work: Path,
    ) -> AdaptGroup:
        """Registers the group to the base's template and computes its images.

        Parameters
        ----------
        kept : folder in which the gain and the registration are kept, for other groups of this base
            as well.
        work : folder for the images of this group, which are memory maps.
        """
        prior, conditions = base.prior, data.train.conditions
        encoded, unseen = data.train.encoded(), data.val.encoded()
        if site_gain:
            prior = with_kept_gain(prior, encoded, conditions, kept)
        found = displacements(prior, encoded, conditions, kept)
        of_unseen = displacements(prior, unseen, data.val.conditions, kept)
        if mean_shift:
            prior = with_fitted_shift(prior, encoded, found, conditions, base.space)
        held_out = work / "held-out"
        return cls(
            prior,
            TrainingImages.of(prior, encoded, found, conditions, work),
            TrainingImages.of(prior, unseen, of_unseen, data.val.conditions, held_out),
        )
