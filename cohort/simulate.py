"""Stage `simulate`: a simulated cohort, so that everything runs without a subject's data."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cohort import derivatives
from cohort.derivatives import Participant
from contracts import closure, params, volume
from contracts.condition import condition
from contracts.console import command, progress, say
from contracts.errors import UserError
from contracts.maps import checked
from contracts.space import Space, mni_space

if TYPE_CHECKING:
    from cohort.simulation.person import Person
    from cohort.simulation.tissue import Template

OUT = Path("data/bids")
WORK = Path("data/work")
NAME = "Simulated diffusion MRI cohort"
_AGES = (18.0, 88.0)
# First number of each group's ids; apart, so that a bigger base group renames no target subject.
_FIRST = {"base": 1, "target": 5001}
# Steps of the R2 low-discrepancy sequence: ages and sexes stay even for any number of subjects.
_STEPS = (0.7548776662466927, 0.5698402909980532)
# Ages of the target group are u ** this of the range: below 1 is older.
_AGE_POWER = {"base": 1.0, "target": 0.5}


@dataclass(frozen=True, slots=True)
class Simulate:
    """Section `simulate` of params.yaml.

    Parameters
    ----------
    output : ``maps`` writes maps of each subject, fitted to a scan that is not kept; ``dwi``
        writes the scans, as raw BIDS.
    max_bvalue : of the tensor fit, in s/mm2; used by output ``maps``.
    maps : see `contracts.maps.checked`; used by output ``maps``.
    """

    seed: int
    resolution_mm: float
    output: Literal["maps", "dwi"]
    base_subjects: int
    target_subjects: int
    max_bvalue: float
    maps: tuple[str, ...] = ("fa", "md")

    def __post_init__(self) -> None:
        checked(self.maps)
        if not 0 <= self.base_subjects < _FIRST["target"] or self.target_subjects < 0:
            raise ValueError(f"expected 0 to {_FIRST['target'] - 1} base subjects and no negatives")
        if self.base_subjects + self.target_subjects == 0:
            raise ValueError("expected at least one subject")


def recruit(settings: Simulate) -> list[Participant]:
    """The cohort: a base group at site A, even in age, and an older target group at site B."""
    groups = (("base", "A", settings.base_subjects), ("target", "B", settings.target_subjects))
    return [
        _participant(settings.seed, group, site, number)
        for group, site, count in groups
        for number in range(count)
    ]


def _participant(seed: int, group: str, site: str, number: int) -> Participant:
    start = np.random.default_rng((seed, _FIRST[group])).random(2)
    u, v = (start + (number + 1) * np.array(_STEPS)) % 1
    age = _AGES[0] + (_AGES[1] - _AGES[0]) * u ** _AGE_POWER[group]
    label = f"sub-sim{_FIRST[group] + number:04d}"
    return Participant(label, round(float(age), 1), "F" if v < 0.5 else "M", group, site)


def person(participant: Participant, seed: int) -> Person:
    """What `participant` is simulated from: their id and the cohort's seed alone."""
    from cohort.simulation.acquisition import SITE_A, SITE_B
    from cohort.simulation.person import Person

    number = int(participant.id.removeprefix("sub-sim"))
    site = {site.name: site for site in (SITE_A, SITE_B)}[participant.site]
    return Person(condition(participant.age, participant.sex), site, (seed, number))


def simulate(settings: Simulate, out: Path, work: Path, workers: int | None = None) -> None:
    """Write the cohort as a BIDS folder `out`.

    Parameters
    ----------
    work : finished subjects and the template are kept here, in a folder named by a hash of the
        recipe (settings and code), so that a stopped run goes on where it was.
    workers : processes; default one per core.

    Raises
    ------
    UserError : if `out` holds a dataset that is not simulated.
    """
    _refuse_real_data(out)
    space = mni_space(settings.resolution_mm)
    cohort = recruit(settings)
    kept = work / f"simulate-{recipe_hash(settings)}"
    template = kept / "template.npz"
    if not template.exists():
        say(f"template at {settings.resolution_mm:g} mm")
        make_template(settings, space).save(template)
    for participant in cohort:  # a half-written subject is made again
        if not _finished(kept, participant.id, settings, space):
            shutil.rmtree(kept / participant.id, ignore_errors=True)
    missing = [p for p in cohort if not (kept / p.id).exists()]
    done = len(cohort) - len(missing)
    made = _run(settings, missing, kept, template, workers or os.cpu_count() or 1)
    for _ in progress(made, total=len(cohort), what="simulated", done=done):
        pass
    _assemble(settings, cohort, kept, out)
    for other in work.glob("simulate-*"):
        if other != kept:
            shutil.rmtree(other)


def make_template(settings: Simulate, space: Space) -> Template:
    """The calibrated template for output on `space`."""
    from cohort.simulation.regional_norms import calibrate
    from cohort.simulation.tissue import build_template

    return calibrate(build_template(settings.resolution_mm), space, settings.max_bvalue)


def recipe_hash(settings: Simulate) -> str:
    """Return a hash of all that a subject's files depend on.

    These are the settings without the numbers of subjects, and the code: every module of this
    project that the stage imports.
    """
    recipe = asdict(settings)
    del recipe["base_subjects"], recipe["target_subjects"]
    text = json.dumps(recipe, sort_keys=True) + closure.digest("cohort.simulate")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_one(
    settings: Simulate, participant: Participant, folder: Path, template_path: Path
) -> str:
    """Simulate one subject into `folder` and return their id."""
    from cohort import tensor
    from cohort.simulation import acquisition
    from cohort.simulation import person as simulated

    template = _load(template_path)
    space = mni_space(settings.resolution_mm)
    who = person(participant, settings.seed)
    if settings.output == "dwi":
        scheme = acquisition.protocol()
        volumes, _ = simulated.scan(template, space, who, scheme)
        _write_dwi(folder / participant.id / "dwi", participant.id, space, volumes, scheme)
    else:
        found, mask = simulated.maps(template, space, who, settings.max_bvalue)
        sidecar = {
            "Simulated": True,
            "FitMethod": tensor.METHOD,
            "MaxBValue": settings.max_bvalue,
            "Site": participant.site,
        }
        fitted = {"fa": found.fa, "md": found.md}
        if "ad" in settings.maps:
            fitted["ad"] = found.ad
        derivatives.write_subject(folder, participant.id, space, fitted, mask, sidecar)
    return participant.id


@functools.cache
def _load(path: Path) -> Template:
    from cohort.simulation.tissue import Template

    return Template.load(path)


def _write_dwi(folder: Path, label: str, space: Space, volumes: Any, scheme: Any) -> None:
    stem = folder / f"{label}_dwi"
    volume.write(stem.with_name(f"{stem.name}.nii.gz"), volumes, space)
    # FSL's convention: relative to the image axes, the first one flipped where the affine's
    # determinant is positive.
    flip = [-1, 1, 1] if np.linalg.det(space.matrix[:3, :3]) > 0 else [1, 1, 1]
    rows = (scheme.bvecs * flip + 0.0).T
    stem.with_suffix(".bvec").write_text(
        "".join(" ".join(f"{v:.8f}" for v in row) + "\n" for row in rows)
    )
    stem.with_suffix(".bval").write_text(" ".join(f"{b:g}" for b in scheme.bvals) + "\n")
    meta = {"Simulated": True, "Units": "arbitrary", "SkullStripped": True, "Manufacturer": "none"}
    stem.with_suffix(".json").write_text(json.dumps(meta, indent=2) + "\n")


def _finished(kept: Path, label: str, settings: Simulate, space: Space) -> bool:
    """Whether the file that is written last is there."""
    last = f"{label}_dwi.json"
    if settings.output == "maps":
        last = derivatives.mask_name(label, space)
    return (kept / label / "dwi" / last).exists()


def _run(
    settings: Simulate, missing: list[Participant], kept: Path, template: Path, workers: int
) -> Iterator[str]:
    if workers == 1 or len(missing) < 2:
        for participant in missing:
            yield write_one(settings, participant, kept, template)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_single_thread,
    )
    try:
        jobs = [pool.submit(write_one, settings, p, kept, template) for p in missing]
        for job in as_completed(jobs):
            yield job.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _single_thread() -> None:
    """One BLAS thread per process: subjects run side by side."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def _refuse_real_data(out: Path) -> None:
    path = out / derivatives.DESCRIPTION
    if not out.exists() or not any(out.iterdir()):
        return
    if not path.exists() or not json.loads(path.read_text()).get("Simulated"):
        raise UserError(
            f"{out} holds data that are not simulated: move them elsewhere before simulating"
        )


def _assemble(settings: Simulate, cohort: list[Participant], kept: Path, out: Path) -> None:
    """Link the finished subjects and write what describes them."""
    if out.exists():
        shutil.rmtree(out)
    ready = out / "derivatives" / "simulated"
    derivatives.write_description(ready, f"{NAME}: maps", True, "cohort.simulate")
    raw = {"Name": NAME, "BIDSVersion": "1.10.0", "DatasetType": "raw", "Simulated": True}
    (out / derivatives.DESCRIPTION).write_text(json.dumps(raw, indent=2) + "\n")
    for root in (out, ready):
        derivatives.write_participants(root, cohort)
        (root / "participants.json").write_text(json.dumps(_COLUMNS, indent=2) + "\n")
    space = mni_space(settings.resolution_mm)
    (ready / derivatives.SPACE).write_text(json.dumps(space.to_json(), indent=2) + "\n")
    _write_atlas(ready, space, kept / "template.npz")
    home = ready if settings.output == "maps" else out
    for participant in cohort:
        shutil.copytree(kept / participant.id, home / participant.id, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _write_atlas(root: Path, space: Space, template_path: Path) -> None:
    from cohort.simulation import deformation
    from cohort.simulation.tissue import LABELS

    template = _load(template_path)
    index = deformation.to_index(space.centres().reshape(-1, 3), template.space)
    labels = deformation.sample_labels(template.labels, index).reshape(space.shape)
    volume.write(root / "atlas_dseg.nii.gz", labels.astype(np.int16), space)
    lines = ["index\tname", *(f"{number}\t{name}" for number, name in LABELS.items())]
    (root / "atlas_dseg.tsv").write_text("\n".join(lines) + "\n")


_COLUMNS = {
    "age": {"Description": "age of the simulated person", "Units": "years"},
    "sex": {"Description": "simulated sex", "Levels": {"F": "female", "M": "male"}},
    "group": {
        "Description": "what the subject is for",
        "Levels": {"base": "training of a base generator", "target": "adaptation to a new site"},
    },
    "site": {"Description": "simulated scanner"},
}


@command()
def main() -> None:
    """Simulate a diffusion MRI cohort into data/bids (section `simulate` of params.yaml)."""
    simulate(params.load(Simulate, "simulate"), OUT, WORK)


if __name__ == "__main__":
    main()
