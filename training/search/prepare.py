"""What is done once before the first trial: open the study, and compute what trials share."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from contracts import closure, paths
from contracts.console import say
from contracts.errors import UserError
from contracts.params import load
from models.adapters.targets import blocks
from models.generator import Generator
from training.adapt_data import AdaptData
from training.adapt_group import AdaptGroup
from training.dataset import TrainingImages
from training.search.block_order import block_order
from training.search.database import url_of
from training.search.earlier import learn
from training.search.settings import TuneSettings
from training.search.space import Space
from training.search.study import Study
from training.search.trial import Shared
from training.settings import AdaptSettings, HeldOutSettings

# What may change without making it another study; the sampler stands in its name.
_EFFORT = ("trials", "concurrent", "cpus", "gpus", "finalists", "sampler")
STUDIES = paths.WORK / "studies"


def prepared(settings: TuneSettings) -> tuple[Study, Shared]:
    """Opens the study of these settings, data and code, and computes what its trials share.

    Only the target group's training and validation subjects are read.

    Raises
    ------
    UserError : if the base or the data are missing, or the storage cannot be used.
    """
    base = paths.MODELS / settings.dim / "base"
    if not (base / "generator.json").exists():
        raise UserError(f"no generator in {base}; make it with `dvc repro train@{settings.dim}`")
    adapt = load(AdaptSettings, f"adapt.{settings.dim}")
    data = AdaptData.load(paths.DERIVATIVES, paths.SPLIT)
    generator = Generator.load(base)
    name = study_name(settings, adapt, generator, data)
    folder = STUDIES / name
    given = settings.space
    groups = {}
    for gain, shift in product(sorted(set(given.site_gain)), sorted(set(given.mean_shift))):
        work = folder / f"group-{gain:d}{shift:d}"
        group = AdaptGroup.of(generator, data, gain, shift, paths.WORK, work)
        groups[gain, shift] = replace(group, train=_plain(group.train), val=_plain(group.val))
    names = blocks(generator.denoiser.network)
    if given.blocks == "top":
        names = _kept_order(folder, generator, groups, adapt)
        say(f"blocks by gain per parameter: {', '.join(names)}")
    space = Space(given, adapt, names)
    held_out = HeldOutSettings(samples=settings.samples, steps=settings.evaluations)
    study = Study(url_of(folder), name, folder, settings, space)
    scored_by = _key(_scored_by(settings, adapt, generator, data))
    if learnt := learn(study, settings.start_from, STUDIES, scored_by):
        say(f"{learnt} trials of earlier studies are known to the sampler")
    return study, Shared(generator, data, groups, held_out, space, settings.cpus)


def _plain(images: TrainingImages) -> TrainingImages:
    """Returns the images as an array that Ray shares without a copy, which a memory map is not."""
    return replace(images, images=np.asarray(images.images))


def _kept_order(
    folder: Path,
    base: Generator,
    groups: dict[tuple[bool, bool], AdaptGroup],
    adapt: AdaptSettings,
) -> tuple[str, ...]:
    """Returns `block_order`, the same for the whole study: its trials count on it."""
    path = folder / "blocks.json"
    if not path.exists():
        group = groups.get((adapt.site_gain, adapt.mean_shift), next(iter(groups.values())))
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(block_order(base, group, adapt.loop(1e-3))))
        partial.replace(path)
    return tuple(json.loads(path.read_text()))


def study_name(
    settings: TuneSettings, adapt: AdaptSettings, base: Generator, data: AdaptData
) -> str:
    """Returns the name of a study, which tells everything that its trials depend on."""
    chosen = {k: v for k, v in asdict(settings).items() if k not in _EFFORT}
    key = _key([_scored_by(settings, adapt, base, data), chosen])
    return f"{settings.dim}-{settings.sampler}-{key}"


def _scored_by(
    settings: TuneSettings, adapt: AdaptSettings, base: Generator, data: AdaptData
) -> dict[str, Any]:
    """Returns what the result of a trial with given settings depends on."""
    return {
        "code": closure.digest("training.search.trial"),
        "base": base.digest,
        "data": [data.train.digest, data.val.digest],
        "adapt": asdict(adapt),
        "regions": hashlib.sha256(data.held_out.regions.labels.tobytes()).hexdigest(),
        "samples": [settings.samples, settings.evaluations],
    }


def _key(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
