"""The stage `derive`: maps and brain mask of every scan in the working space."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from cohort import derivatives, participants, pool
from cohort.importer import MapScan, Scan, SourceScans, find_scans
from cohort.participants import ParticipantsTable
from cohort.qc import Quality
from cohort.qc import write as write_quality
from cohort.stage_output import link_tree, whole_folder, write_whole
from contracts import bids, closure, params, paths, volume
from contracts.console import command, progress, say
from contracts.errors import UserError
from contracts.maps import checked, map_spec
from contracts.space import Space, mni_space


@dataclass(frozen=True, slots=True)
class DeriveSettings:
    """Section `derive` of params.yaml.

    Parameters
    ----------
    source : folder with ready FA and MD maps, a BIDS dataset of DWI, or DICOM series.
    resolution_mm : voxel edge of the working space: 4, 2 or 1.
    max_bvalue : highest b-value of the tensor fit, in s/mm2.
    maps : ``fa, md`` or ``fa, md, ad, rd``.
    """

    source: str
    resolution_mm: float
    max_bvalue: float
    maps: tuple[str, ...] = ("fa", "md")

    def __post_init__(self) -> None:
        checked(self.maps)


@dataclass(frozen=True, slots=True)
class ScanTask:
    """One scan to derive into the folder of finished scans."""

    scan: Scan
    settings: DeriveSettings
    finished: Path


def derive(
    settings: DeriveSettings,
    out: Path,
    work: Path,
    masks: Path = paths.MASKS,
    workers: int | None = None,
) -> list[Quality]:
    """Write derivatives of all scans that can be used to `out`.

    Parameters
    ----------
    work : finished scans stay here, in a folder named by a hash of settings and code, so that a
        stopped run goes on where it was and a new subject costs only its own time.
    masks : folder of brain masks drawn by hand; they overrule the automatic ones.
    workers : number of processes; by default one per core, or fewer where memory is short.

    Returns
    -------
    The quality of each scan, sorted by scan id.

    Raises
    ------
    UserError : if no scan was found or none could be derived.
    """
    source = Path(settings.source)
    space = mni_space(settings.resolution_mm)
    scans, table, conversion = _read_source(source, work, masks)
    finished = work / f"derive-{recipe_hash(settings)}"
    usable = {p.id for p in table.participants}
    tasks = {s.id: ScanTask(s, settings, finished) for s in scans.scans if s.id in usable}
    quality = {scan: q for scan, task in tasks.items() if (q := _finished(task)) is not None}
    missing = {scan: task for scan, task in tasks.items() if scan not in quality}
    if missing:
        _save_targets(finished, space)
    made = pool.run(derive_one, missing, workers or pool.default_workers(), _lost)
    for scan, found in progress(made, len(tasks), "derived", done=len(quality)):
        quality[scan] = found
    derived = [p for p in table.participants if quality[p.id].status != "failed"]
    left_out = [Quality(scan, "left out", reason) for scan, reason in table.left_out.items()]
    rows = sorted([*quality.values(), *left_out], key=lambda q: q.participant_id)
    if not derived:
        first = next(iter(quality.values()), rows[0])
        raise UserError(
            f"{source}: none of {len(rows)} scans could be derived; {first.participant_id}: "
            f"{first.reason}"
        )
    with whole_folder(out) as folder:
        _assemble(folder, derived, finished, space)
        labels = [map_spec(name).label for name in settings.maps]
        _describe(folder, source, f"{', '.join(labels[:-1])} and {labels[-1]}", space)
        _copy_atlas(folder, scans.atlas, space)
        participants.add_families(folder / bids.PARTICIPANTS, table.families)
        write_quality(folder / bids.QUALITY, rows)
        if conversion is not None:
            shutil.copy(conversion, folder / bids.CONVERSION)
    for other in work.glob("derive-*"):
        if other != finished:
            shutil.rmtree(other)
    for note in scans.notes:
        say(note)
    return rows


def derive_one(task: ScanTask) -> Quality:
    """Derive one scan; any error gives the status `failed`."""
    scan, native = task.scan, task.finished / bids.NATIVE_FOLDER
    # An earlier output may share these files by hard links, so they are removed, not overwritten.
    for folder in (task.finished / scan.id, native / scan.id):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        quality = _derive(task)
    except UserError as error:
        return Quality(scan.id, "failed", str(error))
    except Exception as error:  # One bad scan must not cost the others.
        details = task.finished / "errors" / f"{scan.id}.txt"
        details.parent.mkdir(parents=True, exist_ok=True)
        details.write_text(traceback.format_exc())
        return Quality(scan.id, "failed", f"{type(error).__name__}: {error} (see {details})")
    content = {"fingerprint": _fingerprint(scan), "quality": dataclasses.asdict(quality)}
    write_whole(_record(task), json.dumps(content))
    return quality


def _lost(scan: str) -> Quality:
    return Quality(scan, "failed", "its process died: out of memory? try --workers 1")


def recipe_hash(settings: DeriveSettings) -> str:
    """Return a hash of all that a scan's derivatives depend on, except its source files.

    These are the settings, and the code: every module of this project that the stage imports.
    """
    recipe = [settings.resolution_mm, settings.max_bvalue, settings.maps]
    text = json.dumps(recipe) + closure.digest("cohort.derive")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read_source(
    source: Path, work: Path, masks: Path
) -> tuple[SourceScans, ParticipantsTable, Path | None]:
    """Return the scans, their participants, and the report of a DICOM conversion or None."""
    scans = find_scans(source, masks)
    table = participants.find_table(source)
    tables = [participants.read_sessions(source)]
    tables += [participants.read_table(table)] if table is not None else []
    conversion = None
    if not scans.scans:
        from cohort import dicom

        converted = work / "dicom"
        dicom.convert(source, converted)
        scans = find_scans(converted, masks)
        # Ages and sexes of the DICOM headers fill the gaps of the lab's table.
        tables.append(participants.read_table(converted / bids.PARTICIPANTS))
        conversion = converted / bids.CONVERSION
        if not scans.scans:
            raise UserError(
                f"{source}: no FA and MD maps, no *_dwi.nii.gz, no DICOM diffusion series found; "
                f"see {conversion}"
            )
    return scans, participants.join_tables([s.id for s in scans.scans], tables), conversion


def _save_targets(finished: Path, space: Space) -> None:
    """Write the registration targets once, for all processes."""
    from cohort.registration import load_mni_template, registration_space

    for grid in {space, registration_space()}:
        path = _target_path(finished, grid)
        if not path.exists():
            load_mni_template(grid).save(path)


def _target_path(finished: Path, space: Space) -> Path:
    return finished / f"target_{space.name}.npz"


def _derive(task: ScanTask) -> Quality:
    from cohort import qc, registration, scan_maps

    scan, settings, finished = task.scan, task.settings, task.finished
    space = mni_space(settings.resolution_mm)
    target = registration.MniTemplate.load(_target_path(finished, space), space)
    own = scan_maps.load(scan, settings.max_bvalue, "ad" in settings.maps)
    fa, md = own.maps["fa"], own.maps["md"]
    if fa.shape == space.shape and np.allclose(own.affine, space.matrix, atol=1e-3):
        maps, mask = own.maps, own.mask
        registered = {"Registration": "none: the source is in the working space"}
    else:
        _refuse_other_resolution(scan, space)
        grid = registration.registration_space()
        coarse = registration.MniTemplate.load(_target_path(finished, grid), grid)
        warp = registration.register(fa, md, own.mask, own.affine, coarse)
        maps = {name: warp.apply(values, own.mask, space) for name, values in own.maps.items()}
        mask = warp.mask(own.mask, space) & target.brain
        registered = {
            "Registration": registration.METHOD,
            "Mask": f"{own.sidecar['Mask']}; warped and limited to the template's brain",
        }
    if not isinstance(scan, MapScan):
        scan_maps.write(finished / bids.NATIVE_FOLDER, scan.id, own)
    derivatives.write_subject(finished, scan.id, space, maps, mask, own.sidecar | registered)
    return qc.assess(scan.id, maps["fa"], maps["md"], mask, target, "; ".join(own.notes))


def _refuse_other_resolution(scan: Scan, space: Space) -> None:
    label = bids.space_label(space)
    if isinstance(scan, MapScan) and bids.entity(scan.fa.name, "space") == label:
        raise UserError(
            f"{scan.fa.name} is in {label} on another grid than {space.name}: set "
            "derive.resolution_mm to the resolution of the maps"
        )


def _record(task: ScanTask) -> Path:
    """Return the file that is written when a scan is finished."""
    return task.finished / "done" / f"{task.scan.id}.json"


def _finished(task: ScanTask) -> Quality | None:
    """Return what an earlier run made of the same files, or None if it did not finish."""
    record = _record(task)
    if not record.exists() or not (task.finished / task.scan.id).is_dir():
        return None
    try:
        content = json.loads(record.read_text())
        same = content["fingerprint"] == _fingerprint(task.scan)
    except (OSError, ValueError, KeyError):  # A file is gone, or the record is damaged.
        return None
    return Quality(**content["quality"]) if same else None


def _fingerprint(scan: Scan) -> list[list[Any]]:
    """Return path, size and time of change of each source file."""
    status = [(str(p.resolve()), p.stat()) for p in scan.files]
    return [[path, s.st_size, s.st_mtime_ns] for path, s in status]


def _assemble(
    out: Path, people: Sequence[derivatives.Participant], finished: Path, space: Space
) -> None:
    """Link the finished scans into `out`, with the participants and the space."""
    derivatives.write_participants(out, people)
    derivatives.write_space(out, space)
    for person in people:
        link_tree(finished / person.id, out / person.id)
        native = finished / bids.NATIVE_FOLDER / person.id
        if native.is_dir():
            link_tree(native, out / bids.NATIVE_FOLDER / person.id)


def _describe(out: Path, source: Path, maps: str, space: Space) -> None:
    above = _description_of(source)
    name = f"{above.get('Name', 'Cohort')}: {maps} in {space.name}"
    derivatives.write_description(out, name, bool(above.get("Simulated")), "cohort.derive")


def _copy_atlas(out: Path, atlas: Path | None, space: Space) -> None:
    """Copy the source's atlas if it is on the grid of `space`; say why if it is not copied."""
    if atlas is None:
        return
    try:
        volume.read_on(atlas, space)
    except UserError as error:
        say(f"atlas left out: {error}")
        return
    names = atlas.with_name(bids.ATLAS_NAMES)
    if not names.exists():
        say(f"atlas left out: no {names.name} beside it")
        return
    shutil.copy(atlas, out / bids.ATLAS)
    shutil.copy(names, out / bids.ATLAS_NAMES)


def _description_of(source: Path) -> dict[str, Any]:
    """Read the nearest dataset_description.json in `source` or the two folders above it."""
    source = source.resolve()
    for folder in (source, *source.parents[:2]):
        path = folder / bids.DESCRIPTION
        if path.is_file():
            try:
                content = json.loads(path.read_text())
            except ValueError as error:
                raise UserError(f"{path} is no valid JSON: {error}; mend or remove it") from None
            return content if isinstance(content, dict) else {}
    return {}


@command()
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes; default: one per core, as far as memory allows.",
)
def main(workers: int | None) -> None:
    """Maps and brain mask of every scan in the working space, into data/derivatives.

    The source and its settings are `derive` of params.yaml. A scan that cannot be derived is
    listed below and in data/derivatives/qc.tsv and does not stop the others; the exit code is 0
    as long as one scan was derived.
    """
    rows = derive(
        params.load(DeriveSettings, "derive"), paths.DERIVATIVES, paths.WORK, workers=workers
    )
    for status in ("left out", "failed", "flag"):
        for row in rows:
            if row.status == status:
                say(f"{status}: {row.participant_id}: {row.reason}")
    for row in rows:
        if row.note and row.status in ("pass", "flag"):
            say(f"note: {row.participant_id}: {row.note}")
    count = {s: sum(r.status == s for r in rows) for s in ("pass", "flag", "failed", "left out")}
    numbers = ", ".join(f"{n} {status}" for status, n in count.items() if n)
    click.echo(f"{paths.DERIVATIVES}: {numbers}; see {paths.DERIVATIVES / bids.QUALITY}")


if __name__ == "__main__":
    main()
