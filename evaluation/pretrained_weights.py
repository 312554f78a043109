"""Weight files of ResNets that were trained on other medical images: MedicalNet and RadImageNet.

Files of several layouts are read and their weights renamed to the names that MONAI's ResNet uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import UserError

if TYPE_CHECKING:
    import torch

NetworkName = Literal["medicalnet", "radimagenet"]
State = dict[str, "torch.Tensor"]

TITLE = {"medicalnet": "MedicalNet", "radimagenet": "RadImageNet"}
SOURCE = {
    "medicalnet": "resnet_10_23dataset.pth, say, from https://github.com/Tencent/MedicalNet, or "
    "name hf:TencentMedicalNet/MedicalNet-Resnet10/resnet_10_23dataset.pth",
    "radimagenet": "ResNet50.pt from https://github.com/BMEII-AI/RadImageNet, or name "
    "hf:Lab-Rasool/RadImageNet/ResNet50.pt",
}

_HUB = "hf:"
# RadImageNet's PyTorch files call the children of torchvision's ResNet by their numbers.
_CHILDREN = {"0": "conv1", "1": "bn1"} | {str(i + 3): f"layer{i}" for i in range(1, 5)}


def read_weights(network: NetworkName, where: str | Path) -> tuple[Path, State]:
    """Reads the weights of a network, without those of its last, classifying layer.

    Parameters
    ----------
    where : a file, or ``hf:OWNER/NAME/FILE`` on Hugging Face's hub, which is downloaded once.

    Returns
    -------
    The file, and its weights by the names that MONAI's and torchvision's ResNets have in common.

    Raises
    ------
    UserError : if the file is absent, cannot be downloaded, or is not a file of weights.
    """
    name = str(where)
    path = _download(network, name) if name.startswith(_HUB) else Path(where)
    return path, _rename(network, _read_file(network, path))


def _download(network: NetworkName, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    owner, _, rest = name.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    # The other exceptions of the hub are OSErrors.
    except (HFValidationError, OSError, ValueError) as error:
        raise UserError(
            f"{name} cannot be fetched ({str(error).splitlines()[0]}): expected "
            f"hf:OWNER/NAME/FILE and a connection (unset HF_HUB_OFFLINE), or get {SOURCE[network]}"
        ) from None


def _read_file(network: NetworkName, path: Path) -> Mapping[str, Any]:
    import torch

    if not path.is_file():
        raise UserError(f"no {TITLE[network]} weights at {path}: get {SOURCE[network]}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file, or one of another kind, may raise any of a dozen exceptions.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or no file of weights ({type(error).__name__}): "
            f"get {SOURCE[network]}"
        ) from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path}: expected weights by name, found a {type(content).__name__}: "
            f"get {SOURCE[network]}"
        )
    return content


def _rename(network: NetworkName, found: Mapping[str, Any]) -> State:
    """Returns the weights by common names, without those of the last layers."""
    import torch

    state: State = {}
    for key, value in found.items():
        name = str(key).removeprefix("module.").removeprefix("backbone.")
        first, _, rest = name.partition(".")
        if network == "radimagenet" and first in _CHILDREN:
            name = f"{_CHILDREN[first]}.{rest}"
        if first not in ("fc", "conv_seg") and isinstance(value, torch.Tensor):
            state[name] = value
    return state


def fold_biases(state: State) -> State:
    """Returns weights of the same function without convolution biases.

    Each bias is subtracted from the mean of the batch normalisation that follows it.
    """
    state = dict(state)
    for name in [k for k in state if re.search(r"(conv\d|downsample\.0)\.bias$", k)]:
        bias = state.pop(name)
        norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        mean = norm.replace(".bias", ".running_mean")
        if mean in state and state[mean].shape == bias.shape:
            state[mean] = state[mean] - bias
    return state


def fill(network: torch.nn.Module, state: State) -> list[str]:
    """Loads weights into a network, or returns what does not fit, one phrase per weight."""
    import torch

    # Old files lack the number of batches of each normalisation, which inference does not use.
    counts = {
        k: torch.zeros((), dtype=torch.long)
        for k in network.state_dict()
        if k.endswith("num_batches_tracked")
    }
    state, wanted = counts | state, network.state_dict()
    problems = []
    for name, value in wanted.items():
        if name not in state:
            problems.append(f"{name} is missing")
        elif state[name].shape != value.shape:
            shapes = [tuple(w.shape) for w in (state[name], value)]
            problems.append(f"{name} is {shapes[0]}, expected {shapes[1]}")
    problems += [f"{name} has no place" for name in state if name not in wanted]
    if not problems:
        network.load_state_dict({k: v.to(wanted[k].dtype) for k, v in state.items()}, assign=True)
    return problems
