"""Find what a source folder holds: ready FA and MD maps, or DWI series."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cohort import dwi
from cohort.participants import subject_label, subject_of
from cohort.tensor import B0_LIMIT
from contracts.errors import UserError

_NIFTI = re.compile(r"\.nii(\.gz)?$")
# "fa" or "md" as a word of its own: param-fa_dwimap, dti_FA, map-MD, x.fa; not colfa.
_MAP = re.compile(r"(?<![a-z0-9])(fa|md)(?![a-z0-9])", re.IGNORECASE)
_MAP_ENDING = re.compile(r"(?<![a-z0-9])(fa|md)(_dwimap|_map)?$", re.IGNORECASE)
# AD, or L1 as FSL's dtifit calls it.
_AXIAL_ENDING = re.compile(r"(?<![a-z0-9])(ad|l1)(_dwimap|_map)?$", re.IGNORECASE)
_ANY_MAP = re.compile(r"(?<![a-z0-9])(fa|md|ad|l1)(?![a-z0-9])", re.IGNORECASE)
_DWI = re.compile(r"(^|_)dwi$", re.IGNORECASE)
_SUBJECT = re.compile(r"(?:^|[_.])sub-([A-Za-z0-9]+)")
_SESSION = re.compile(r"(?:^|[_.])ses-([A-Za-z0-9]+)")
_CAMCAN = re.compile(r"(?<![A-Za-z0-9])CC\d{6}(?!\d)")
_MASK = re.compile(r"mask$", re.IGNORECASE)
# Words of file and folder names that name no subject.
_ENTITY = re.compile(r"^(acq|desc|dir|label|map|model|param|rec|res|run|space)-", re.IGNORECASE)
_PLAIN = {
    *("brain", "data", "derivatives", "dti", "dtifit", "dwi", "dwimap", "fa", "fsl", "map"),
    *("maps", "mask", "masks", "md", "nodif", "tensor"),
}
ATLAS = "atlas_dseg.nii.gz"


@dataclass(frozen=True, slots=True)
class MapScan:
    """Ready maps of one scan, AD where there is one; `id` is ``sub-x`` or ``sub-x_ses-y``."""

    id: str
    fa: Path
    md: Path
    ad: Path | None
    mask: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the result depends on."""
        return tuple(p for p in (self.fa, self.md, self.ad, self.mask) if p is not None)


@dataclass(frozen=True, slots=True)
class DwiScan:
    """A DWI series, its gradients beside it."""

    id: str
    series: Path
    mask: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the result depends on."""
        beside = (dwi.sibling(self.series, suffix) for suffix in (".bval", ".bvec", ".json"))
        found = (self.series, *(p for p in beside if p.exists()))
        return found if self.mask is None else (*found, self.mask)


Scan = MapScan | DwiScan


@dataclass(frozen=True, slots=True)
class Found:
    """Scans sorted by id, a label atlas of the maps' grid, and what a person should know."""

    scans: tuple[Scan, ...]
    atlas: Path | None
    notes: tuple[str, ...]


def find(source: Path, masks: Path | None = None) -> Found:
    """Scans under `source`; where there are ready maps, DWI series are not used.

    Parameters
    ----------
    masks : a folder of brain masks drawn by hand, named by subject; they overrule others.

    Raises
    ------
    UserError : if `source` is no folder.
    """
    if not source.is_dir():
        raise UserError(f"no folder {source}: set derive.source in params.yaml to your cohort")
    files = _walk(source)
    atlas = next((p for p in files if p.name == ATLAS), None)
    by_hand = {} if masks is None or not masks.is_dir() else _by_hand(masks)
    scans, notes = _maps(files, source)
    if not scans:
        scans, more = _series(files, source)
        notes += more
    beside = defaultdict(list)
    for path in files:
        if _MASK.search(_stem(path)):
            beside[path.parent].append(path)
    masked = [replace(s, mask=_mask(s, source, beside, by_hand)) for s in scans.values()]
    named = sorted(_plain_ids(masked), key=lambda s: s.id)
    return Found(tuple(named), atlas, tuple(notes))


def scan_id(path: Path, root: Path) -> str:
    """The scan that a file belongs to, from its name or its folders.

    ``sub-x``, then CamCAN's ``CC`` and six digits, then the file's stem or the nearest folder
    that says more than `dti` or `maps`.
    """
    parts = [*path.relative_to(root).parts[:-1], _stem(path)]
    for part in reversed(parts):
        if found := _SUBJECT.search(part):
            sessions = (_SESSION.search(p) for p in reversed(parts))
            session = next((s.group(1) for s in sessions if s), None)
            return f"sub-{found.group(1)}" + (f"_ses-{session}" if session else "")
    for part in reversed(parts):
        if found := _CAMCAN.search(part):
            return subject_label(found.group())
    for part in (*reversed(parts), root.name):
        words = (w for w in re.split(r"[_.\s]", part) if not _ENTITY.match(w))
        telling = "".join(w for w in words if w.lower() not in _PLAIN)
        if telling:
            return subject_label(telling)
    raise UserError(f"{path}: nothing in its name or folders tells the subject")


def _walk(source: Path) -> list[Path]:
    """NIfTI files under `source`, hidden folders left out, in a fixed order."""
    files = []
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        files += [Path(folder) / n for n in sorted(names) if _NIFTI.search(n) and n[0] != "."]
    return files


def _maps(files: Sequence[Path], root: Path) -> tuple[dict[str, Scan], list[str]]:
    """FA, MD and, where there is one, AD whose paths differ in that word alone."""
    axial = {_ANY_MAP.sub("*", str(p)): p for p in files if _AXIAL_ENDING.search(_stem(p))}
    pairs: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        if ending := _MAP_ENDING.search(_stem(path)):
            key = _MAP.sub("*", str(path.relative_to(root)))
            pairs[key][ending.group(1).lower()] = path
    scans: dict[str, list[MapScan]] = defaultdict(list)
    notes = []
    for pair in pairs.values():
        some = next(iter(pair.values()))
        scan = scan_id(some, root)
        if len(pair) == 2:
            ad = axial.get(_ANY_MAP.sub("*", str(pair["fa"])))
            scans[scan].append(MapScan(scan, pair["fa"], pair["md"], ad, None))
        else:
            notes.append(f"{scan}: {some.name} has no partner (FA and MD are both needed)")
    chosen: dict[str, Scan] = {}
    for scan, found in scans.items():
        chosen[scan] = best = min(found, key=lambda s: _map_rank(s.fa))
        if len(found) > 1:
            notes.append(f"{scan}: {len(found)} pairs of maps, used {best.fa.name}")
    return chosen, notes


def _map_rank(path: Path) -> tuple[bool, bool, str]:
    """Tensor maps before those of other models; the scan's own space before a template's."""
    name = path.name.lower()
    other_model = "model-" in name and "model-tensor" not in name and "model-dti" not in name
    return other_model, "space-mni" in name and "2009asym" not in name, str(path)


def _series(files: Iterable[Path], root: Path) -> tuple[dict[str, Scan], list[str]]:
    """The DWI series of each scan; of several, the one with most weighted volumes."""
    found: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in files:
        if _DWI.search(_stem(path)) and "derivatives" not in path.relative_to(root).parts:
            found[scan_id(path, root)].append((_weighted(path), path))
    scans: dict[str, Scan] = {}
    notes = []
    for scan, runs in found.items():
        _, best = min(runs, key=lambda run: (-run[0], str(run[1])))
        scans[scan] = DwiScan(scan, best, None)
        if len(runs) > 1:
            notes.append(f"{scan}: {len(runs)} DWI series, used {best.name}")
    return scans, notes


def _weighted(path: Path) -> int:
    try:
        return int(np.count_nonzero(dwi.read_bvals(path) > B0_LIMIT))
    except UserError:
        return 0  # told when the series is read


def _plain_ids(scans: Iterable[Scan]) -> list[Scan]:
    """Leave the session out of the id where a subject has but one."""
    by_subject: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_subject[subject_of(scan.id)].append(scan)
    return [
        replace(scan, id=subject) if len(several) == 1 else scan
        for subject, several in by_subject.items()
        for scan in several
    ]


def _mask(
    scan: Scan, root: Path, beside: Mapping[Path, Sequence[Path]], by_hand: Mapping[str, Path]
) -> Path | None:
    """A mask by hand, else one of the same scan and space in the same folder."""
    for key in (scan.id, subject_of(scan.id)):
        if key in by_hand:
            return by_hand[key]
    own = scan.fa if isinstance(scan, MapScan) else scan.series
    near = beside.get(own.parent, ())
    fitting = [p for p in near if _space(p) == _space(own) and scan_id(p, root) == scan.id]
    return min(fitting, key=lambda p: ("brain" not in p.name.lower(), p.name), default=None)


def _by_hand(folder: Path) -> dict[str, Path]:
    return {scan_id(p, folder): p for p in _walk(folder) if _MASK.search(_stem(p))}


def _space(path: Path) -> str | None:
    found = re.search(r"(?:^|_)space-([A-Za-z0-9]+)(?:_res-([A-Za-z0-9]+))?", path.name)
    return found.group() if found else None


def _stem(path: Path) -> str:
    return _NIFTI.sub("", path.name)
