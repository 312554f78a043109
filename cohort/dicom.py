"""Conversion of DICOM series to a BIDS dataset of DWI, by dcm2niix."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from cohort import dwi
from cohort.stage_output import write_whole
from cohort.tensor import B0_LIMIT
from contracts import bids, closure
from contracts.console import progress
from contracts.errors import UserError

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_SESSION = re.compile(r"^(?P<subject>.+?)[_-]ses-(?P<session>[A-Za-z0-9]+)$")
# Fields of dcm2niix's JSON that are kept. None of them tells who was scanned, where or when.
_KEPT = (
    *("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength", "SeriesDescription"),
    *("ProtocolName", "ImageType", "SliceThickness", "EchoTime", "RepetitionTime"),
    *("FlipAngle", "PhaseEncodingDirection", "PhaseEncodingAxis", "EffectiveEchoSpacing"),
    *("TotalReadoutTime", "ParallelReductionFactorInPlane", "MultibandAccelerationFactor"),
    *("SliceTiming", "ConversionSoftware", "ConversionSoftwareVersion"),
)
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, zlib.error)


@dataclass(frozen=True, slots=True)
class Series:
    """What became of one series, or of a whole input that holds none: one row of conversion.tsv.

    Parameters
    ----------
    subject : BIDS label, e.g. ``sub-01``.
    session : label of the session, empty where there is none.
    status : ``converted``; ``skipped``, if it is no diffusion series; ``failed``.
    detail : reason or warnings.
    file : name of the converted file.
    age, sex : as in the DICOM header, empty where it does not tell.
    """

    subject: str
    session: str
    description: str
    status: Literal["converted", "skipped", "failed"]
    detail: str
    file: str = ""
    age: str = ""
    sex: str = ""


def convert(source: Path, out: Path) -> tuple[Series, ...]:
    """Convert every DICOM folder and archive of `source` to DWI under the BIDS folder `out`.

    Each folder or archive (.zip, .tar, .tar.gz, .tgz) directly in `source` is one subject, and
    its name is the label; ``<subject>/ses-<x>/`` and ``<subject>_ses-<x>.zip`` tell sessions. An
    input that was converted before, by the same code, and has not changed is not converted
    again. A broken input is reported in the result and stops no other. Ages and sexes of the
    DICOM headers are written to `out`/participants.tsv.

    Raises
    ------
    UserError : if `source` holds neither folders nor archives.
    """
    inputs = _inputs(source)
    if not inputs:
        raise UserError(f"{source}: expected a folder or archive of DICOM files per subject")
    for gone in {p.name for p in out.glob("sub-*")} - {subject for subject, _ in inputs}:
        shutil.rmtree(out / gone)

    def one(item: tuple[tuple[str, str], list[Path]]) -> tuple[Series, ...]:
        (subject, session), paths = item
        try:
            return _convert_one(subject, session, paths, out)
        except Exception as error:  # One bad input must not cost the others.
            return (Series(subject, session, paths[0].name, "failed", repr(error)),)

    with ThreadPoolExecutor() as threads:  # dcm2niix runs in its own processes.
        results = threads.map(one, inputs.items())
        made = list(progress(results, total=len(inputs), what="DICOM converted"))
    series = tuple(row for rows in made for row in rows)
    _write_report(out / bids.CONVERSION, series)
    _write_participants(out / bids.PARTICIPANTS, series)
    return series


def _inputs(source: Path) -> dict[tuple[str, str], list[Path]]:
    """Return the folders and archives of each subject and session."""
    inputs: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or _is_archive(path)):
            continue
        sessions = sorted(path.glob("ses-*")) if path.is_dir() else []
        for item in sessions or [path]:
            name = f"{path.name}_{item.name}" if sessions else path.name
            for ending in _ARCHIVES:
                name = name.removesuffix(ending)
            found = _SESSION.match(name)
            subject, session = found.group("subject", "session") if found else (name, "")
            inputs[bids.subject_label(subject), session].append(item)
    return dict(inputs)


def _convert_one(subject: str, session: str, inputs: list[Path], out: Path) -> tuple[Series, ...]:
    """Convert the inputs of one subject and session, unless that was done before."""
    scan = bids.scan_id(subject, session)
    record = out / bids.SOURCE_FOLDER / f"{scan}.json"
    fingerprint = _fingerprint(inputs)
    if record.exists():
        before = json.loads(record.read_text())
        if before["fingerprint"] == fingerprint:
            return tuple(Series(**row) for row in before["series"])
    target = bids.raw_folder(out, subject, session)
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        rows = tuple(_run(subject, session, inputs, Path(scratch), target))
    if any(row.status == "failed" for row in rows):  # The next run tries again.
        return rows
    content = {"fingerprint": fingerprint, "series": [asdict(row) for row in rows]}
    write_whole(record, json.dumps(content, indent=1) + "\n")
    return rows


def _run(
    subject: str, session: str, inputs: list[Path], scratch: Path, target: Path
) -> Iterator[Series]:
    """Convert inputs in the folder `scratch`, and move the diffusion series to `target`."""
    images: dict[str, Path] = {}
    complaints: list[str] = []
    failed = unreadable = False
    for number, path in enumerate(inputs):
        try:
            folders = list(_unpacked(path, scratch / f"in{number}"))
        except _BROKEN as error:
            yield Series(subject, session, path.name, "failed", f"archive cannot be read: {error}")
            unreadable = True
            continue
        for folder in folders:
            into = scratch / f"out{len(list(scratch.glob('out*')))}"
            code, text = _dcm2niix(folder, into)
            # dcm2niix returns 0 if it converted all files and 2 if there was no DICOM file.
            failed |= code not in (0, 2)
            complaints += text
            # Files are named by series UID, so that a series in two inputs counts once.
            images |= {p.name: p for p in sorted(into.glob("*.nii.gz"))}
    about = {name: _header(path) for name, path in images.items()}
    people = {(h.get("PatientID"), h.get("PatientName")) for h in about.values()}
    people.discard((None, None))  # Anonymised headers and derived images name nobody.
    if len(people) > 1:
        reason = f"holds scans of {len(people)} people: make one folder per subject"
        yield Series(subject, session, inputs[0].name, "failed", reason)
        return
    diffusion = [name for name, path in images.items() if _is_diffusion(path)]
    for name, path in images.items():
        header = about[name]
        description = str(header.get("SeriesDescription", header.get("ProtocolName", "")))
        who = {"age": str(header.get("PatientAge", "")), "sex": str(header.get("PatientSex", ""))}
        if name not in diffusion:
            yield Series(subject, session, description, "skipped", "no diffusion series", **who)
            continue
        run = diffusion.index(name) + 1 if len(diffusion) > 1 else None
        file = target / bids.dwi_name(bids.scan_id(subject, session), run)
        _store(path, header, file)
        detail = "; ".join(complaints)
        yield Series(subject, session, description, "converted", detail, file.name, **who)
    if failed or not (images or unreadable):
        reason = "; ".join(complaints) or "no DICOM images found"
        status: Literal["failed", "skipped"] = "failed" if failed else "skipped"
        yield Series(subject, session, inputs[0].name, status, reason)


def _dcm2niix(folder: Path, into: Path) -> tuple[int, list[str]]:
    """Run dcm2niix and return its exit code and its lines with errors or warnings."""
    from dcm2niix import bin as program

    into.mkdir()
    command = [program, "-b", "y", "-ba", "n", "-c", "", "-d", "9", "-f", "%j", "-z", "y"]
    done = subprocess.run(
        [*command, "-o", str(into), str(folder)], capture_output=True, text=True, errors="replace"
    )
    lines = (done.stdout + done.stderr).splitlines()
    found = [_shown(line, folder) for line in lines if re.match(r"(Error|Warning)", line)]
    return done.returncode, list(dict.fromkeys(found))


def _shown(line: str, folder: Path) -> str:
    """Return a line of dcm2niix for a table cell, without the name of the scratch folder."""
    return line.replace(str(folder), folder.name).replace("\t", " ").strip()


def _is_diffusion(image: Path) -> bool:
    try:
        return bool(np.any(dwi.read_bvals(image) > B0_LIMIT))
    except UserError:
        return False


def _header(image: Path) -> dict[str, Any]:
    path = bids.sidecar(image)
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def _store(image: Path, header: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(image, file)
    for suffix in (".bval", ".bvec"):
        shutil.move(bids.sibling(image, suffix), bids.sibling(file, suffix))
    kept = {key: header[key] for key in _KEPT if key in header}
    bids.sidecar(file).write_text(json.dumps(kept, indent=2) + "\n")


def _is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(_ARCHIVES)


def _unpacked(path: Path, into: Path) -> Iterator[Path]:
    """Yield the folders to convert: `path` itself, and one per archive at or under it."""
    if path.is_dir():
        yield path
    archives = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if _is_archive(p)]
    for number, archive in enumerate(archives):
        folder = into / str(number)
        folder.mkdir(parents=True)
        for index, (name, stream) in enumerate(_members(archive)):
            # A member's own path could point outside the folder.
            with stream, (folder / f"{index:06d}_{Path(name).name}").open("wb") as copy:
                shutil.copyfileobj(stream, copy)
        yield folder


def _members(archive: Path) -> Iterator[tuple[str, BinaryIO]]:
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as content:
            for info in content.infolist():
                if not info.is_dir():
                    yield info.filename, content.open(info)  # type: ignore[misc]
        return
    with tarfile.open(archive) as content_tar:
        for member in content_tar:
            stream = content_tar.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield member.name, stream  # type: ignore[misc]


def _fingerprint(inputs: list[Path]) -> str:
    """Return a hash of the inputs' files and of the code that converts them."""
    digest = hashlib.sha256(closure.digest("cohort.dicom").encode())
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            status = file.stat()
            digest.update(f"{file}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _write_report(path: Path, series: tuple[Series, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(
            stream, [f.name for f in fields(Series)], delimiter="\t", lineterminator="\n"
        )
        table.writeheader()
        table.writerows(asdict(row) for row in series)


def _write_participants(path: Path, series: tuple[Series, ...]) -> None:
    converted = {row.subject: row for row in series if row.status == "converted"}
    lines = ["participant_id\tage\tsex"]
    for subject, row in sorted(converted.items()):
        sex = row.sex if row.sex in ("F", "M") else "n/a"
        lines.append(f"{subject}\t{row.age or 'n/a'}\t{sex}")
    path.write_text("\n".join(lines) + "\n")
