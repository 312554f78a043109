"""The target group: what an adapter is trained on, and what judges it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cohort.derivatives import Derivatives
from cohort.split import Manifest
from cohort.subjects import SubjectFiles, Subjects
from evaluation.atlas import quarters
from evaluation.held_out import HeldOut, HeldOutSubjects
from evaluation.regional_means import RegionalMeans
from models.generator import Generator
from training.settings import HeldOutSettings


@dataclass(frozen=True, slots=True)
class AdaptData:
    """Subjects of the target group in memory.

    Parameters
    ----------
    train : what the inner loop trains on.
    val : what stops the training early, and what the outer objective is measured on.
    held_out : what the validation subjects are compared with, in the regions of the cohort's
        atlas; without one, the four `quarters` of the brain.
    """

    train: Subjects
    val: Subjects
    held_out: HeldOutSubjects

    @classmethod
    def load(cls, derivatives: Path, split: Path) -> AdaptData:
        """Reads target-train and target-val.

        Raises
        ------
        UserError : as `SubjectFiles.find`.
        """
        train, val = (
            SubjectFiles.find(derivatives, split, "target", part) for part in ("train", "val")
        )
        return cls._of(train.cohort, train, val)

    @classmethod
    def part(cls, derivatives: Path, split: Path, train: Sequence[str]) -> AdaptData:
        """Reads some subjects to train on, and target-val."""
        cohort = Derivatives.open(derivatives)
        val = Manifest.read(split).subjects("target", "val")
        return cls._of(cohort, SubjectFiles.of(cohort, train), SubjectFiles.of(cohort, val))

    @classmethod
    def _of(cls, cohort: Derivatives, train: SubjectFiles, val: SubjectFiles) -> AdaptData:
        subjects, atlas = train.load(), cohort.atlas()
        labels, _ = atlas or quarters(np.any(subjects.masks, axis=0))
        regions = RegionalMeans.of(labels, subjects.volumes, subjects.conditions)
        unseen = val.load()
        held_out = HeldOutSubjects.of(
            regions, subjects.volumes, unseen.volumes, unseen.conditions, subjects.space
        )
        return cls(subjects, unseen, held_out)

    def score(self, generator: Generator, settings: HeldOutSettings, seed: int = 0) -> HeldOut:
        """Returns the scores of a generator's volumes beside those of the validation subjects.

        Parameters
        ----------
        seed : of the first volume.
        """
        return self.held_out.score(generator, settings.samples, settings.steps, seed)
