"""The stage `derive`: maps and brain mask of every scan in the working space."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from cohort import derivatives, participants, pool
from cohort.importer import ATLAS, Found, MapScan, Scan, find
from cohort.qc import REPORT, Quality
from cohort.qc import write as write_quality
from contracts import closure, params, volume
from contracts.console import command, progress, say
from contracts.errors import UserError
from contracts.maps import checked, map_spec
from contracts.space import Space, mni_space

OUT = Path("data/derivatives")
WORK = Path("data/work")
MASKS = Path("data/Masks")
NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Derive:
    """Section `derive` of params.yaml.

    Parameters
    ----------
    source : folder with ready FA and MD maps, a BIDS tree of DWI, or DICOM series.
    resolution_mm : voxel edge of the working space: 4, 2 or 1.
    max_bvalue : of the tensor fit, in s/mm2.
    maps : ``fa, md`` or ``fa, md, ad, rd``.
    """

    source: str
    resolution_mm: float
    max_bvalue: float
    maps: tuple[str, ...] = ("fa", "md")

    def __post_init__(self) -> None:
        checked(self.maps)


@dataclass(frozen=True, slots=True)
class Job:
    """One scan to derive into the folder `kept`."""

    scan: Scan
    settings: Derive
    kept: Path


def derive(
    settings: Derive, out: Path, work: Path, masks: Path = MASKS, workers: int | None = None
) -> list[Quality]:
    """Write derivatives of all scans that can be used to `out`.

    Parameters
    ----------
    work : finished scans are kept here, in a folder named by a hash of settings and code, so
        that a stopped run goes on where it was and a new subject costs only its own time.
    masks : a folder of brain masks drawn by hand; they overrule the automatic ones.
    workers : processes; default one per core, fewer where memory is short.

    Raises
    ------
    UserError : if no scan was found or none could be derived.
    """
    source = Path(settings.source)
    space = mni_space(settings.resolution_mm)
    found, roll, conversion = _cohort(source, work, masks)
    kept = work / f"derive-{recipe_hash(settings)}"
    usable = {p.id for p in roll.participants}
    jobs = {s.id: Job(s, settings, kept) for s in found.scans if s.id in usable}
    finished = {scan: q for scan, job in jobs.items() if (q := _finished(job)) is not None}
    missing = {scan: job for scan, job in jobs.items() if scan not in finished}
    if missing:
        _prepare(kept, space)
    made = pool.run(derive_one, missing, workers or pool.default_workers(), _lost)
    for scan, quality in progress(made, len(jobs), "derived", done=len(finished)):
        finished[scan] = quality
    people = [p for p in roll.participants if finished[p.id].status != "failed"]
    rows = [*finished.values(), *(Quality(s, "left out", r) for s, r in roll.left_out.items())]
    if not people:
        first = rows[0]
        raise UserError(
            f"{source}: none of {len(rows)} scans could be derived; {first.participant_id}: "
            f"{first.reason}"
        )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _assemble(partial, people, kept, space)
    labels = [map_spec(name).label for name in settings.maps]
    _describe(partial, source, f"{', '.join(labels[:-1])} and {labels[-1]}", space, found.atlas)
    participants.add_families(partial / derivatives.PARTICIPANTS, roll.families)
    write_quality(partial / REPORT, rows)
    if conversion is not None:
        shutil.copy(conversion, partial / conversion.name)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    for other in work.glob("derive-*"):
        if other != kept:
            shutil.rmtree(other)
    for note in found.notes:
        say(note)
    return sorted(rows, key=lambda q: q.participant_id)


def derive_one(job: Job) -> Quality:
    """Derive one scan; whatever goes wrong becomes a row with status `failed`."""
    scan = job.scan
    try:
        quality = _derive(job)
    except UserError as error:
        return Quality(scan.id, "failed", str(error))
    except Exception as error:  # one bad scan must not cost the others
        details = job.kept / "errors" / f"{scan.id}.txt"
        details.parent.mkdir(parents=True, exist_ok=True)
        details.write_text(traceback.format_exc())
        return Quality(scan.id, "failed", f"{type(error).__name__}: {error} (see {details})")
    marker = _marker(job)
    marker.parent.mkdir(parents=True, exist_ok=True)
    content = {"fingerprint": _fingerprint(scan), "quality": dataclasses.asdict(quality)}
    marker.write_text(json.dumps(content))
    return quality


def _lost(scan: str) -> Quality:
    return Quality(scan, "failed", "its process died: out of memory? try --workers 1")


def recipe_hash(settings: Derive) -> str:
    """Return a hash of all that a scan's derivatives depend on, except its source files.

    These are the settings, and the code: every module of this project that the stage imports.
    """
    recipe = [settings.resolution_mm, settings.max_bvalue, settings.maps]
    text = json.dumps(recipe) + closure.digest("cohort.derive")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cohort(source: Path, work: Path, masks: Path) -> tuple[Found, participants.Roll, Path | None]:
    """Scans, their people, and the report of a DICOM conversion if there was one."""
    found = find(source, masks)
    table = participants.find_table(source)
    tables = [participants.read_sessions(source)]
    tables += [participants.read_table(table)] if table is not None else []
    conversion = None
    if not found.scans:
        from cohort import dicom

        tree = work / "dicom"
        dicom.convert(source, tree)
        found = find(tree, masks)
        # The headers' ages and sexes fill the gaps of the lab's table.
        tables.append(participants.read_table(tree / derivatives.PARTICIPANTS))
        conversion = tree / dicom.REPORT
        if not found.scans:
            raise UserError(
                f"{source}: no FA and MD maps, no *_dwi.nii.gz, no DICOM diffusion series found; "
                f"see {conversion}"
            )
    return found, participants.enrol([s.id for s in found.scans], tables), conversion


def _prepare(kept: Path, space: Space) -> None:
    """Make the registration targets once, for all processes."""
    from cohort.registration import load_target, registration_space

    for grid in {space, registration_space()}:
        path = _target_path(kept, grid)
        if not path.exists():
            load_target(grid).save(path)


def _target_path(kept: Path, space: Space) -> Path:
    return kept / f"target_{space.name}.npz"


def _derive(job: Job) -> Quality:
    from cohort import native, qc, registration

    scan, space, kept = job.scan, mni_space(job.settings.resolution_mm), job.kept
    target = registration.Target.load(_target_path(kept, space), space)
    own = native.load(scan, job.settings.max_bvalue, "ad" in job.settings.maps)
    fa, md = own.maps["fa"], own.maps["md"]
    if fa.shape == space.shape and np.allclose(own.affine, space.matrix, atol=1e-3):
        maps, mask = own.maps, own.mask
        registered = {"Registration": "none: the source is in the working space"}
    else:
        _refuse_other_resolution(scan, space)
        grid = registration.registration_space()
        coarse = registration.Target.load(_target_path(kept, grid), grid)
        warp = registration.register(fa, md, own.mask, own.affine, coarse)
        maps = {name: warp.apply(values, own.mask, space) for name, values in own.maps.items()}
        mask = warp.mask(own.mask, space) & target.brain
        registered = {
            "Registration": registration.METHOD,
            "Mask": f"{own.sidecar['Mask']}; warped and limited to the template's brain",
        }
    if isinstance(scan, MapScan):
        shutil.rmtree(kept / NATIVE / scan.id, ignore_errors=True)
    else:
        native.write(kept / NATIVE, scan.id, own)
    derivatives.write_subject(kept, scan.id, space, maps, mask, own.sidecar | registered)
    return qc.assess(scan.id, maps["fa"], maps["md"], mask, target, "; ".join(own.notes))


def _refuse_other_resolution(scan: Scan, space: Space) -> None:
    label = space.name.split("_res-")[0]
    if isinstance(scan, MapScan) and f"space-{label}_" in scan.fa.name:
        raise UserError(
            f"{scan.fa.name} is in {label} on another grid than {space.name}: set "
            "derive.resolution_mm to the resolution of the maps"
        )


def _marker(job: Job) -> Path:
    return job.kept / "done" / f"{job.scan.id}.json"


def _finished(job: Job) -> Quality | None:
    """What an earlier run made of the same files, if it finished."""
    marker = _marker(job)
    if not marker.exists() or not (job.kept / job.scan.id).is_dir():
        return None
    try:
        content = json.loads(marker.read_text())
        same = content["fingerprint"] == _fingerprint(job.scan)
    except (OSError, ValueError, KeyError):  # a stop while it was written, or a file gone
        return None
    return Quality(**content["quality"]) if same else None


def _fingerprint(scan: Scan) -> list[list[Any]]:
    status = [(str(p.resolve()), p.stat()) for p in scan.files]
    return [[path, s.st_size, s.st_mtime_ns] for path, s in status]


def _assemble(
    out: Path, people: Sequence[derivatives.Participant], kept: Path, space: Space
) -> None:
    derivatives.write_participants(out, people)
    (out / derivatives.SPACE).write_text(json.dumps(space.to_json(), indent=2) + "\n")
    for person in people:
        shutil.copytree(kept / person.id, out / person.id, copy_function=_link)
        if (kept / NATIVE / person.id).is_dir():
            shutil.copytree(
                kept / NATIVE / person.id, out / NATIVE / person.id, copy_function=_link
            )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _describe(out: Path, source: Path, maps: str, space: Space, atlas: Path | None) -> None:
    above = _description_of(source)
    name = f"{above.get('Name', 'Cohort')}: {maps} in {space.name}"
    derivatives.write_description(out, name, bool(above.get("Simulated")), "cohort.derive")
    if atlas is None:
        return
    try:
        volume.read_on(atlas, space)
    except UserError as error:
        say(f"atlas left out: {error}")
        return
    names = atlas.with_name(ATLAS.replace(".nii.gz", ".tsv"))
    if not names.exists():
        say(f"atlas left out: no {names.name} beside it")
        return
    shutil.copy(atlas, out / ATLAS)
    shutil.copy(names, out / names.name)


def _description_of(source: Path) -> dict[str, Any]:
    """The nearest dataset_description.json of `source` or the folders above it."""
    source = source.resolve()
    for folder in (source, *source.parents[:2]):
        path = folder / derivatives.DESCRIPTION
        if path.is_file():
            try:
                content = json.loads(path.read_text())
            except ValueError as error:
                raise UserError(f"{path} is no valid JSON: {error}") from None
            return content if isinstance(content, dict) else {}
    return {}


@command()
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default: one per core.")
def main(workers: int | None) -> None:
    """Maps and brain mask of every scan in the working space, into data/derivatives.

    The source and its settings are `derive` of params.yaml. A scan that cannot be derived is
    told below and in data/derivatives/qc.tsv and does not stop the others; the exit code is 0 as
    long as one scan was derived.
    """
    rows = derive(params.load(Derive, "derive"), OUT, WORK, workers=workers)
    for status in ("left out", "failed", "flag"):
        for row in rows:
            if row.status == status:
                say(f"{status}: {row.participant_id}: {row.reason}")
    for row in rows:
        if row.note and row.status in ("pass", "flag"):
            say(f"note: {row.participant_id}: {row.note}")
    count = {s: sum(r.status == s for r in rows) for s in ("pass", "flag", "failed", "left out")}
    numbers = ", ".join(f"{n} {status}" for status, n in count.items() if n)
    click.echo(f"{OUT}: {numbers}; see {OUT / REPORT}")


if __name__ == "__main__":
    main()
