"""The stage `simulate`: a simulated cohort, so that everything runs without a subject's data."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohort import derivatives, pool
from cohort.derivatives import Participant
from cohort.simulation import disease_truth
from cohort.stage_output import link_tree, whole_folder, write_whole
from contracts import bids, closure, params, paths, volume
from contracts.condition import condition
from contracts.console import command, progress, say
from contracts.errors import UserError
from contracts.maps import checked
from contracts.space import Space, mni_space

if TYPE_CHECKING:
    from cohort.simulation.acquisition import GradientScheme
    from cohort.simulation.person import Person
    from cohort.simulation.tissue import TissueTemplate

NAME = "Simulated diffusion MRI cohort"
# Folder of the maps, below the derivatives of the BIDS dataset.
PIPELINE = "simulated"
# Name of the tissue template in the folder of finished subjects.
TISSUE_TEMPLATE = "tissue_template.npz"
# Folder of patients without their disease, among finished subjects.
HEALTHY = "healthy"
_AGES = (18.0, 88.0)
# First number of each group's ids. They lie apart, so that a larger base group renames no subject
# of the target group.
_FIRST = {"base": 1, "target": 5001}
# Steps of the R2 low-discrepancy sequence (Roberts 2018), with which ages and sexes are spread
# evenly for any number of subjects.
_STEPS = (0.7548776662466927, 0.5698402909980532)
# An age is this power of a number in [0, 1), scaled to the range of ages: below 1 is older.
_AGE_POWER = {"base": 1.0, "target": 0.5}


@dataclass(frozen=True, slots=True)
class SimulateSettings:
    """Section `simulate` of params.yaml.

    Parameters
    ----------
    seed : seed of the cohort.
    resolution_mm : voxel edge: 4, 2 or 1.
    output : ``maps`` writes maps of each subject, fitted to a scan that is not kept; ``dwi``
        writes the scans, as raw BIDS.
    base_subjects, target_subjects : number of subjects in each group.
    max_bvalue : highest b-value of the tensor fit, in s/mm2; only for output ``maps``.
    maps : ``fa, md`` or ``fa, md, ad, rd``; only for output ``maps``.
    disease_effect : mean severity of the target group's disease, see `cohort.simulation.disease`;
        0: they are healthy and differ by their scanner alone.
    """

    seed: int
    resolution_mm: float
    output: Literal["maps", "dwi"]
    base_subjects: int
    target_subjects: int
    max_bvalue: float
    maps: tuple[str, ...] = ("fa", "md")
    disease_effect: float = 0.0

    def __post_init__(self) -> None:
        checked(self.maps)
        if not 0 <= self.disease_effect <= 2:
            raise ValueError("expected a disease_effect from 0 to 2")
        if not 0 <= self.base_subjects < _FIRST["target"] or self.target_subjects < 0:
            raise ValueError(f"expected 0 to {_FIRST['target'] - 1} base subjects and no negatives")
        if self.base_subjects + self.target_subjects == 0:
            raise ValueError("expected at least one subject")


def recruit(settings: SimulateSettings) -> list[Participant]:
    """Return the cohort's participants.

    They are a base group at site A, whose ages are spread evenly, and an older target group at
    site B.
    """
    groups = (("base", "A", settings.base_subjects), ("target", "B", settings.target_subjects))
    return [
        _participant(settings.seed, group, site, number)
        for group, site, count in groups
        for number in range(count)
    ]


def _participant(seed: int, group: str, site: str, number: int) -> Participant:
    offset = np.random.default_rng((seed, _FIRST[group])).random(2)
    u, v = (offset + (number + 1) * np.array(_STEPS)) % 1
    age = _AGES[0] + (_AGES[1] - _AGES[0]) * u ** _AGE_POWER[group]
    subject = f"sub-sim{_FIRST[group] + number:04d}"
    return Participant(subject, round(float(age), 1), "F" if v < 0.5 else "M", group, site)


def person(participant: Participant, settings: SimulateSettings) -> Person:
    """Return the simulated person, who follows from the participant and the settings."""
    from cohort.simulation.acquisition import SCANNER_A, SCANNER_B
    from cohort.simulation.person import Person

    number = int(participant.id.removeprefix("sub-sim"))
    scanner = {scanner.site: scanner for scanner in (SCANNER_A, SCANNER_B)}[participant.site]
    who = condition(participant.age, participant.sex)
    disease = settings.disease_effect if participant.group == "target" else 0.0
    return Person(who, scanner, (settings.seed, number), disease)


def simulate(settings: SimulateSettings, out: Path, work: Path, workers: int | None = None) -> None:
    """Write the cohort as a BIDS dataset `out`.

    Parameters
    ----------
    work : finished subjects and the tissue template stay here, in a folder named by a hash of
        settings and code, so that a stopped run goes on where it was.
    workers : number of processes; one per core by default.

    Raises
    ------
    UserError : if `out` holds a dataset that is not simulated, or if a process died.
    """
    _refuse_real_data(out)
    space = mni_space(settings.resolution_mm)
    cohort = recruit(settings)
    finished = work / f"simulate-{recipe_hash(settings)}"
    template = finished / TISSUE_TEMPLATE
    if not template.exists():
        say(f"tissue template for {settings.resolution_mm:g} mm")
        make_tissue_template(settings, space).save(template)
    for participant in cohort:  # A subject that is written in part is made again.
        if not _is_finished(finished, participant.id, settings, space):
            shutil.rmtree(finished / participant.id, ignore_errors=True)
    missing = [p for p in cohort if not (finished / p.id).exists()]
    done = len(cohort) - len(missing)
    tasks = {p.id: SubjectTask(settings, p, finished, template) for p in missing}
    healthy = replace(settings, disease_effect=0.0)
    for p in _patients(settings, cohort):
        if not _is_finished(finished / HEALTHY, p.id, settings, space):
            shutil.rmtree(finished / HEALTHY / p.id, ignore_errors=True)
            tasks[f"{p.id} {HEALTHY}"] = SubjectTask(healthy, p, finished / HEALTHY, template)
    made = pool.run(_run_task, tasks, workers or os.cpu_count() or 1, _lost)
    for _ in progress(made, total=done + len(tasks), what="simulated", done=done):
        pass
    with whole_folder(out) as folder:
        _assemble(settings, cohort, finished, folder)
    for other in work.glob("simulate-*"):
        if other != finished:
            shutil.rmtree(other)


def make_tissue_template(settings: SimulateSettings, space: Space) -> TissueTemplate:
    """Return the tissue template, matched to regional norms, for output on `space`."""
    from cohort.simulation.regional_norms import match_norms
    from cohort.simulation.tissue import build_tissue_template

    template = build_tissue_template(settings.resolution_mm)
    return match_norms(template, space, settings.max_bvalue)


def _patients(settings: SimulateSettings, cohort: list[Participant]) -> list[Participant]:
    """Return whom to simulate without their disease, too, for the table of its effects."""
    if settings.output != "maps" or settings.disease_effect == 0:
        return []
    return disease_truth.patients(cohort)


def recipe_hash(settings: SimulateSettings) -> str:
    """Return a hash of all that a subject's files depend on.

    These are the settings without the numbers of subjects, and the code: every module of this
    project that the stage imports.
    """
    recipe = asdict(settings)
    del recipe["base_subjects"], recipe["target_subjects"]
    text = json.dumps(recipe, sort_keys=True) + closure.digest("cohort.simulate")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class SubjectTask(NamedTuple):
    """One subject to simulate into `folder`, with the tissue template of a file."""

    settings: SimulateSettings
    participant: Participant
    folder: Path
    template: Path


def _run_task(task: SubjectTask) -> str:
    return write_one(*task)


def _lost(subject: str) -> str:
    raise UserError(
        f"{subject}: its process died, as when memory runs out; end other programs and run again: "
        "finished subjects are kept"
    )


def write_one(
    settings: SimulateSettings, participant: Participant, folder: Path, template_path: Path
) -> str:
    """Simulate one subject into `folder` and return their id."""
    from cohort import tensor
    from cohort.simulation import acquisition
    from cohort.simulation import person as simulated

    template = _load(template_path)
    space = mni_space(settings.resolution_mm)
    who = person(participant, settings)
    if settings.output == "dwi":
        scheme = acquisition.camcan_scheme()
        volumes, _ = simulated.scan(template, space, who, scheme)
        _write_dwi(folder, participant.id, space, volumes, scheme)
    else:
        maps, mask = simulated.maps(template, space, who, settings.max_bvalue)
        sidecar = {
            "Simulated": True,
            "FitMethod": tensor.METHOD,
            "MaxBValue": settings.max_bvalue,
            "Site": participant.site,
        }
        chosen = {"fa": maps.fa, "md": maps.md}
        if "ad" in settings.maps:
            chosen["ad"] = maps.ad
        derivatives.write_subject(folder, participant.id, space, chosen, mask, sidecar)
    return participant.id


@functools.cache
def _load(path: Path) -> TissueTemplate:
    from cohort.simulation.tissue import TissueTemplate

    return TissueTemplate.load(path)


def _write_dwi(
    root: Path, subject: str, space: Space, volumes: NDArray[np.float32], scheme: GradientScheme
) -> None:
    path = bids.raw_folder(root, subject, None) / bids.dwi_name(subject)
    volume.write(path, volumes, space)
    # FSL's convention: b-vectors are relative to the image axes, and the first axis is flipped
    # where the affine's determinant is positive.
    flip = [-1, 1, 1] if np.linalg.det(space.matrix[:3, :3]) > 0 else [1, 1, 1]
    rows = (scheme.bvecs * flip + 0.0).T
    lines = (" ".join(f"{v:.8f}" for v in row) + "\n" for row in rows)
    bids.sibling(path, ".bvec").write_text("".join(lines))
    bvals = " ".join(f"{b:g}" for b in scheme.bvals)
    bids.sibling(path, ".bval").write_text(f"{bvals}\n")
    meta = {"Simulated": True, "Units": "arbitrary", "SkullStripped": True, "Manufacturer": "none"}
    write_whole(bids.sidecar(path), json.dumps(meta, indent=2) + "\n")


def _is_finished(finished: Path, subject: str, settings: SimulateSettings, space: Space) -> bool:
    """Return whether the file that is written last is there."""
    if settings.output == "maps":
        last = bids.derivatives_folder(finished, subject) / bids.mask_name(subject, space)
    else:
        last = bids.sidecar(bids.raw_folder(finished, subject, None) / bids.dwi_name(subject))
    return last.exists()


def _refuse_real_data(out: Path) -> None:
    path = out / bids.DESCRIPTION
    if not out.exists() or not any(out.iterdir()):
        return
    if not path.exists() or not json.loads(path.read_text()).get("Simulated"):
        raise UserError(
            f"{out} holds data that are not simulated: move them elsewhere before simulating"
        )


def _assemble(
    settings: SimulateSettings, cohort: list[Participant], finished: Path, out: Path
) -> None:
    """Link the finished subjects into `out` and write the files that describe them."""
    maps = out / bids.DERIVATIVES_FOLDER / PIPELINE
    derivatives.write_description(maps, f"{NAME}: maps", True, "cohort.simulate")
    raw = {"Name": NAME, "BIDSVersion": bids.VERSION, "DatasetType": "raw", "Simulated": True}
    (out / bids.DESCRIPTION).write_text(json.dumps(raw, indent=2) + "\n")
    for root in (out, maps):
        derivatives.write_participants(root, cohort)
        (root / bids.PARTICIPANTS_SIDECAR).write_text(json.dumps(_COLUMNS, indent=2) + "\n")
    space = mni_space(settings.resolution_mm)
    derivatives.write_space(maps, space)
    _write_atlas(maps, space, finished / TISSUE_TEMPLATE)
    home = maps if settings.output == "maps" else out
    for participant in cohort:
        link_tree(finished / participant.id, home / participant.id)
    if patients := _patients(settings, cohort):
        ids = [p.id for p in patients]
        found = disease_truth.effects(derivatives.Derivatives.open(maps), finished / HEALTHY, ids)
        disease_truth.write(maps / disease_truth.TABLE, found)


def _write_atlas(root: Path, space: Space, template_path: Path) -> None:
    from cohort.simulation import deformation
    from cohort.simulation.tissue import LABELS

    template = _load(template_path)
    index = deformation.to_index(space.centres().reshape(-1, 3), template.space)
    labels = deformation.sample_labels(template.labels, index).reshape(space.shape)
    volume.write(root / bids.ATLAS, labels.astype(np.int16), space)
    lines = ["index\tname", *(f"{number}\t{name}" for number, name in LABELS.items())]
    (root / bids.ATLAS_NAMES).write_text("\n".join(lines) + "\n")


_COLUMNS = {
    "age": {"Description": "age of the simulated person", "Units": "years"},
    "sex": {"Description": "simulated sex", "Levels": {"F": "female", "M": "male"}},
    "group": {
        "Description": "what the subject is for",
        "Levels": {
            "base": "training of a base generator",
            "target": "adaptation: patients of another site",
        },
    },
    "site": {"Description": "simulated scanner"},
}


@command()
def main() -> None:
    """Simulate a diffusion MRI cohort into data/bids (section `simulate` of params.yaml)."""
    simulate(params.load(SimulateSettings, "simulate"), paths.BIDS, paths.WORK)


if __name__ == "__main__":
    main()
