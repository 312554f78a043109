"""Names of files and folders in the Brain Imaging Data Structure (BIDS), in one place.

BIDS names a file by entities, ``key-label`` pairs joined by underscores, and a suffix:
``sub-01_ses-pre_dwi.nii.gz``. Maps of diffusion models follow BIDS' proposal for them, BEP016.
A *scan* is one visit of a subject; its id is ``sub-01``, or ``sub-01_ses-pre`` where the subject
was scanned more than once.
"""

from __future__ import annotations

import re
from pathlib import Path

from contracts.maps import MapSpec
from contracts.space import Space

VERSION = "1.10.0"

DESCRIPTION = "dataset_description.json"
PARTICIPANTS = "participants.tsv"
PARTICIPANTS_SIDECAR = "participants.json"
PARTICIPANT_COLUMNS = ("participant_id", "age", "sex", "group", "site")
DWI_FOLDER = "dwi"
DERIVATIVES_FOLDER = "derivatives"
SOURCE_FOLDER = "sourcedata"

# Names that BIDS does not define. They stand at the root of a derivatives folder.
SPACE = "space.json"
ATLAS = "atlas_dseg.nii.gz"
ATLAS_NAMES = "atlas_dseg.tsv"
QUALITY = "qc.tsv"
CONVERSION = "conversion.tsv"
# This folder holds maps in each scan's own space, which BIDS calls its native space.
NATIVE_FOLDER = "native"

_NIFTI = re.compile(r"\.nii(\.gz)?$")


def subject_label(text: str) -> str:
    """Return a subject's BIDS label: ``CC110033`` and ``sub-CC110033`` give ``sub-CC110033``."""
    return "sub-" + re.sub(r"[^A-Za-z0-9]", "", text.strip().removeprefix("sub-"))


def scan_id(subject: str, session: str | None) -> str:
    """Return the id of a scan from its subject (``sub-01``) and the label of its session."""
    return f"{subject}_ses-{session}" if session else subject


def subject_of(scan: str) -> str:
    """Return the subject of a scan id: ``sub-01_ses-pre`` gives ``sub-01``."""
    return scan.split("_ses-")[0]


def raw_folder(root: Path, subject: str, session: str | None) -> Path:
    """Return the folder of a scan's DWI in a raw BIDS dataset."""
    folder = root / subject
    return (folder / f"ses-{session}" if session else folder) / DWI_FOLDER


def derivatives_folder(root: Path, scan: str) -> Path:
    """Return the folder of a scan's maps; a scan with a session has a folder of its own too."""
    return root / scan / DWI_FOLDER


def dwi_name(scan: str, run: int | None = None) -> str:
    """Return the name of a DWI series, e.g. ``sub-01_run-2_dwi.nii.gz``."""
    return f"{scan}_run-{run}_dwi.nii.gz" if run is not None else f"{scan}_dwi.nii.gz"


def map_name(scan: str, space: Space | None, spec: MapSpec) -> str:
    """Return the name of a map of the diffusion tensor.

    An example is ``sub-01_space-MNI152NLin2009aSym_res-4_model-tensor_param-fa_dwimap.nii.gz``.

    Parameters
    ----------
    space : None for the scan's native space, which has no entity.
    """
    return f"{scan}{_in(space)}_model-tensor_param-{spec.name}_dwimap.nii.gz"


def mask_name(scan: str, space: Space | None) -> str:
    """Return the name of a brain mask; `space` is None for the scan's native space."""
    return f"{scan}{_in(space)}_desc-brain_mask.nii.gz"


def space_label(space: Space) -> str:
    """Return the label of the ``space`` entity: the space's name without its resolution."""
    return space.name.split("_res-")[0]


def entity(name: str, key: str) -> str | None:
    """Return the label of one entity of a file or folder name, or None if it has no such one."""
    found = re.search(rf"(?:^|[_.]){key}-([A-Za-z0-9]+)", name)
    return found.group(1) if found else None


def is_nifti(name: str) -> bool:
    """Return whether a file name is that of a NIfTI image, compressed or not."""
    return _NIFTI.search(name) is not None


def stem(path: Path) -> str:
    """Return the name of a NIfTI file without ``.nii`` or ``.nii.gz``."""
    return _NIFTI.sub("", path.name)


def sibling(path: Path, suffix: str) -> Path:
    """Return the file beside a NIfTI file with another ending: ``.json``, ``.bval``, ``.bvec``."""
    return path.with_name(stem(path) + suffix)


def sidecar(path: Path) -> Path:
    """Return the JSON file that describes a NIfTI file."""
    return sibling(path, ".json")


def _in(space: Space | None) -> str:
    return "" if space is None else f"_space-{space.name}"
