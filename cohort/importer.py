"""Find the scans that a source folder holds: ready FA and MD maps, or DWI series."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cohort import dwi
from cohort.stage_output import hint
from cohort.tensor import B0_LIMIT
from contracts import bids, paths
from contracts.errors import UserError

# These match "fa" and "md" as words of their own, as in param-fa_dwimap, dti_FA, map-MD and x.fa,
# but not in colfa.
_MAP = re.compile(r"(?<![a-z0-9])(fa|md)(?![a-z0-9])", re.IGNORECASE)
_MAP_ENDING = re.compile(r"(?<![a-z0-9])(fa|md)(_dwimap|_map)?$", re.IGNORECASE)
# FSL's dtifit calls AD "L1".
_AXIAL_ENDING = re.compile(r"(?<![a-z0-9])(ad|l1)(_dwimap|_map)?$", re.IGNORECASE)
_ANY_MAP = re.compile(r"(?<![a-z0-9])(fa|md|ad|l1)(?![a-z0-9])", re.IGNORECASE)
_DWI = re.compile(r"(^|_)dwi$", re.IGNORECASE)
_CAMCAN = re.compile(r"(?<![A-Za-z0-9])CC\d{6}(?!\d)")
_MASK = re.compile(r"mask$", re.IGNORECASE)
# Words in names of files and folders that do not tell the subject.
_ENTITY = re.compile(r"^(acq|desc|dir|label|map|model|param|rec|res|run|space)-", re.IGNORECASE)
_PLAIN = {
    *("brain", "data", "derivatives", "dti", "dtifit", "dwi", "dwimap", "fa", "fsl", "map"),
    *("maps", "mask", "masks", "md", "nodif", "tensor"),
}


@dataclass(frozen=True, slots=True)
class MapScan:
    """Ready maps of one scan.

    Parameters
    ----------
    id : scan id, ``sub-x`` or ``sub-x_ses-y``.
    ad, mask : None where there is none.
    """

    id: str
    fa: Path
    md: Path
    ad: Path | None
    mask: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the scan's derivatives depend on."""
        return tuple(p for p in (self.fa, self.md, self.ad, self.mask) if p is not None)


@dataclass(frozen=True, slots=True)
class DwiScan:
    """A DWI series of one scan; its gradients lie beside it.

    Parameters
    ----------
    id : scan id, ``sub-x`` or ``sub-x_ses-y``.
    series : the NIfTI file.
    mask : None where there is none.
    """

    id: str
    series: Path
    mask: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the scan's derivatives depend on."""
        beside = (bids.sibling(self.series, suffix) for suffix in (".bval", ".bvec", ".json"))
        found = (self.series, *(p for p in beside if p.exists()))
        return found if self.mask is None else (*found, self.mask)


Scan = MapScan | DwiScan


@dataclass(frozen=True, slots=True)
class SourceScans:
    """The scans of a source folder.

    Parameters
    ----------
    scans : sorted by id.
    atlas : a label atlas on the grid of the maps, or None.
    notes : remarks on files that were left out or chosen among several.
    """

    scans: tuple[Scan, ...]
    atlas: Path | None
    notes: tuple[str, ...]


def find_scans(source: Path, masks: Path | None = None) -> SourceScans:
    """Find the scans under `source`; where there are ready maps, DWI series are not used.

    Parameters
    ----------
    masks : a folder of brain masks drawn by hand, named by subject; they overrule others.

    Raises
    ------
    UserError : if `source` is not a folder.
    """
    if not source.is_dir():
        raise UserError(
            f"no folder {source}: set derive.source in params.yaml to your cohort; if it is the "
            f"simulated cohort, {hint('simulate', paths.BIDS)}"
        )
    files = _walk(source)
    atlas = next((p for p in files if p.name == bids.ATLAS), None)
    by_hand = {} if masks is None or not masks.is_dir() else _by_hand(masks)
    scans, notes = _maps(files, source)
    if not scans:
        scans, more = _series(files, source)
        notes += more
    beside = defaultdict(list)
    for path in files:
        if _MASK.search(bids.stem(path)):
            beside[path.parent].append(path)
    masked = [replace(s, mask=_mask(s, source, beside, by_hand)) for s in scans.values()]
    named = sorted(_plain_ids(masked), key=lambda s: s.id)
    return SourceScans(tuple(named), atlas, tuple(notes))


def scan_id(path: Path, root: Path) -> str:
    """Return the id of the scan that a file belongs to, from its name or its folders.

    The first of these that is found tells the subject: ``sub-x``; CamCAN's ``CC`` and six
    digits; the file's name or that of the nearest folder, if it says more than `dti` or `maps`.

    Parameters
    ----------
    root : source folder, above which no folder is looked at.

    Raises
    ------
    UserError : if nothing tells the subject.
    """
    names = [*path.relative_to(root).parts[:-1], bids.stem(path)]
    names.reverse()
    for name in names:
        if subject := bids.entity(name, "sub"):
            session = next((s for n in names if (s := bids.entity(n, "ses"))), None)
            return bids.scan_id(f"sub-{subject}", session)
    for name in names:
        if found := _CAMCAN.search(name):
            return bids.subject_label(found.group())
    for name in (*names, root.name):
        words = (w for w in re.split(r"[_.\s]", name) if not _ENTITY.match(w))
        telling = "".join(w for w in words if w.lower() not in _PLAIN)
        if telling:
            return bids.subject_label(telling)
    raise UserError(
        f"{path}: nothing in its name or folders tells the subject; name it sub-<label>_..."
    )


def _walk(source: Path) -> list[Path]:
    """Return the NIfTI files under `source` in a fixed order; hidden folders are left out."""
    files = []
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        files += [Path(folder) / n for n in sorted(names) if bids.is_nifti(n) and n[0] != "."]
    return files


def _maps(files: Sequence[Path], root: Path) -> tuple[dict[str, Scan], list[str]]:
    """Group map files to scans, and tell which files were left out.

    FA, MD and, where there is one, AD belong together if their paths differ in that word alone.
    """
    axial = {_ANY_MAP.sub("*", str(p)): p for p in files if _AXIAL_ENDING.search(bids.stem(p))}
    pairs: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        if ending := _MAP_ENDING.search(bids.stem(path)):
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
    """Return a key that sorts the better pair of maps first.

    Maps of the tensor come before those of other models, and maps in the scan's own space before
    those in a template's.
    """
    name = path.name.lower()
    other_model = "model-" in name and "model-tensor" not in name and "model-dti" not in name
    return other_model, "space-mni" in name and "2009asym" not in name, str(path)


def _series(files: Iterable[Path], root: Path) -> tuple[dict[str, Scan], list[str]]:
    """Return the DWI series of each scan, and notes.

    Of several series of a scan, the one with the most weighted volumes is used.
    """
    found: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in files:
        if (
            _DWI.search(bids.stem(path))
            and bids.DERIVATIVES_FOLDER not in path.relative_to(root).parts
        ):
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
        return 0  # The error is reported when the series is read.


def _plain_ids(scans: Iterable[Scan]) -> list[Scan]:
    """Leave the session out of the id where a subject has only one."""
    by_subject: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_subject[bids.subject_of(scan.id)].append(scan)
    return [
        replace(scan, id=subject) if len(several) == 1 else scan
        for subject, several in by_subject.items()
        for scan in several
    ]


def _mask(
    scan: Scan, root: Path, beside: Mapping[Path, Sequence[Path]], by_hand: Mapping[str, Path]
) -> Path | None:
    """Return the mask of a scan: one drawn by hand, or one beside it of the same space."""
    for key in (scan.id, bids.subject_of(scan.id)):
        if key in by_hand:
            return by_hand[key]
    own = scan.fa if isinstance(scan, MapScan) else scan.series
    near = beside.get(own.parent, ())
    fitting = [p for p in near if _space(p) == _space(own) and scan_id(p, root) == scan.id]
    return min(fitting, key=lambda p: ("brain" not in p.name.lower(), p.name), default=None)


def _by_hand(folder: Path) -> dict[str, Path]:
    return {scan_id(p, folder): p for p in _walk(folder) if _MASK.search(bids.stem(p))}


def _space(path: Path) -> tuple[str | None, str | None]:
    """Return the space and the resolution that a name tells."""
    return bids.entity(path.name, "space"), bids.entity(path.name, "res")
