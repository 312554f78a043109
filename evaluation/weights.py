"""Features of networks that were trained on other medical images, for who has their weights.

Nothing is downloaded unasked and nothing is replaced: without the weights there is a `UserError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.console import progress
from contracts.errors import UserError
from contracts.maps import MAPS, MapSpec

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]
Table = NDArray[np.float64]
Kind = Literal["medicalnet", "radimagenet"]
State = dict[str, "torch.Tensor"]

_TITLE = {"medicalnet": "MedicalNet", "radimagenet": "RadImageNet"}
_SOURCE = {
    "medicalnet": "resnet_10_23dataset.pth, say, from https://github.com/Tencent/MedicalNet, or "
    "name hf:TencentMedicalNet/MedicalNet-Resnet10/resnet_10_23dataset.pth",
    "radimagenet": "ResNet50.pt from https://github.com/BMEII-AI/RadImageNet, or name "
    "hf:Lab-Rasool/RadImageNet/ResNet50.pt",
}
_HUB = "hf:"
_WIDTHS = [64, 128, 256, 512]
# Mean and standard deviation over the brains of the simulated cohort, which is calibrated on
# CamCAN; physical units.
_BRAIN = {"fa": (0.22, 0.17), "md": (1.0e-3, 0.38e-3)}
# Images whose longest side is shorter are enlarged to it: the networks have seen whole organs
# over many pixels, and halve the resolution three and five times.
_SIDE = {"medicalnet": 96, "radimagenet": 224}
_CENTRE = 0.4
# Blue, green, red means of ImageNet: what Keras takes from an image of [0, 1].
_KERAS_MEAN = (0.406, 0.456, 0.485)
# Children of torchvision's ResNet by their number, as RadImageNet's PyTorch files name them.
_CHILDREN = {"0": "conv1", "1": "bn1"} | {str(i + 3): f"layer{i}" for i in range(1, 5)}


def load(kind: Kind, where: str | Path, maps: tuple[MapSpec, ...] = MAPS) -> Extractor:
    """A network with the weights in a file, or in ``hf:OWNER/NAME/FILE`` on Hugging Face's hub
    (fetched once; the hub's own variables such as HF_HOME and HF_ENDPOINT hold).

    ``medicalnet``: 3D ResNet-10 to -200 (Chen et al. 2019, Med3D), any of Tencent's files; the
    depth is read off them. Built of MONAI's ResNet; its last two levels are dilated, not strided,
    as the weights were trained (``monai.networks.nets.resnet10(pretrained=True)`` strides there:
    other features from the same file).

    ``radimagenet``: 2D ResNet-50 (Mei et al. 2022), in the authors' PyTorch layout, in
    torchvision's, or in that of conversions from Keras (``RadImageNet-ResNet50_notop.pth``),
    which differ in strides, biases and the input they expect. On one CPU thread 20 s a subject.

    Parameters
    ----------
    maps : of the volumes that features will be asked of.

    Raises
    ------
    UserError : if the file is absent, cannot be fetched or read, or holds other weights.
    """
    name = str(where)
    path = _fetched(kind, name) if name.startswith(_HUB) else Path(where)
    state = _plain(kind, _read(kind, path))
    # Keras's convolutions have biases.
    keras = kind == "radimagenet" and "conv1.bias" in state
    if keras:
        state = _without_biases(state)
    network = _network(kind, state)
    problems = _fill(network, state)
    if problems:
        more = f" and {len(problems) - 1} more such" if problems[1:] else ""
        raise UserError(
            f"{path} does not hold the weights of a {_TITLE[kind]} ResNet: {problems[0]}{more}; "
            f"get {_SOURCE[kind]}"
        )
    if kind == "medicalnet":
        _dilate(network)
    elif keras:
        _as_in_keras(network)
    return Extractor(kind, maps, network.eval().requires_grad_(False), keras)


@dataclass(frozen=True, slots=True)
class Extractor:
    """Features of volumes, see `load`.

    Parameters
    ----------
    keras : the weights come from Keras and want its input.
    """

    kind: Kind
    maps: tuple[MapSpec, ...]
    network: torch.nn.Module
    keras: bool = False

    def __call__(self, volumes: Array) -> Table:
        """Features of each volume by itself, whatever is passed along with it.

        MedicalNet: less the mean and divided by the standard deviation of a healthy brain, the
        background at that mean (the authors take each volume's own, which hides a wrong level,
        and fill the background with noise); enlarged to 96 voxels along the longest axis where it
        is shorter. Averages over space of the last level: 512 or 2048 per map.

        RadImageNet: divided by the map's scale; the centre 40 % of the slices of each plane
        (as Guo et al. 2024, MAISI), enlarged to 224 pixels. Averages over space and slices, the
        three planes side by side: 6144 per map. An average over planes would dilute what a
        slice-wise generator gets wrong, which shows in two of them.

        Parameters
        ----------
        volumes : (n, maps, X, Y, Z) in physical units; impossible values are clipped.

        Returns
        -------
        (n, F), the maps one after the other.

        Raises
        ------
        ValueError : if the volumes have other maps.
        """
        import torch

        if volumes.ndim != 5 or volumes.shape[1] != len(self.maps):
            raise ValueError(
                f"expected (n, {len(self.maps)}, X, Y, Z) volumes, found {volumes.shape}"
            )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.to(device)
        one = self._volume if self.kind == "medicalnet" else self._planes
        # On GPUs, TensorFloat-32 would round to three digits.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        rows = []
        with torch.inference_mode(), exact:
            for volume in progress(volumes, len(volumes), f"features of {_TITLE[self.kind]}"):
                pairs = zip(volume, self.maps, strict=True)
                parts = [one(m.clip(np.nan_to_num(v)), m, device) for v, m in pairs]
                rows.append(torch.cat(parts).double().cpu().numpy())
        return np.stack(rows)

    def _volume(self, values: Array, spec: MapSpec, device: torch.device) -> torch.Tensor:
        """(X, Y, Z) -> (F,)."""
        import torch

        mean, sd = _BRAIN[spec.name]
        standard = np.where(values > 0, (values - mean) / sd, 0).astype(np.float32)
        image = torch.from_numpy(standard).to(device)[None, None]
        out: torch.Tensor = self.network(_enlarged(image, _SIDE[self.kind]))[0]
        return out

    def _planes(self, values: Array, spec: MapSpec, device: torch.device) -> torch.Tensor:
        """(X, Y, Z) -> (3 F,)."""
        import torch

        image = torch.from_numpy(spec.to_network(values)).to(device)
        shift = torch.tensor(_KERAS_MEAN if self.keras else (0.5, 0.5, 0.5), device=device)
        gain = 1 if self.keras else 2
        parts = []
        for axis, count in enumerate(image.shape):
            first, last = (int(count * (0.5 + side * _CENTRE / 2)) for side in (-1, 1))
            slices = image.movedim(axis, 0)[first : max(last, first + 1), None]
            grey = _enlarged(slices, _SIDE[self.kind])
            parts.append(self.network((grey - shift[:, None, None]) * gain).mean(dim=0))
        return torch.cat(parts)


def _enlarged(images: torch.Tensor, side: int) -> torch.Tensor:
    """(n, 1, ...) images whose longest side is at least `side`, linearly interpolated."""
    from torch.nn.functional import interpolate

    shape = images.shape[2:]
    factor = side / max(shape)
    if factor <= 1:
        return images
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return interpolate(images, size=[round(n * factor) for n in shape], mode=mode)


def _fetched(kind: Kind, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    owner, _, rest = name.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except (HFValidationError, OSError, ValueError) as error:  # the hub's own are OSErrors too
        raise UserError(
            f"{name} cannot be fetched ({str(error).splitlines()[0]}): expected "
            f"hf:OWNER/NAME/FILE and a connection (unset HF_HUB_OFFLINE), or get {_SOURCE[kind]}"
        ) from None


def _read(kind: Kind, path: Path) -> Mapping[str, Any]:
    import torch

    if not path.is_file():
        raise UserError(f"no {_TITLE[kind]} weights at {path}: get {_SOURCE[kind]}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file, or one of another kind, ends in any of a dozen exceptions.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or no file of weights ({type(error).__name__}): get {_SOURCE[kind]}"
        ) from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path}: expected weights by name, found a {type(content).__name__}: "
            f"get {_SOURCE[kind]}"
        )
    return content


def _plain(kind: Kind, found: Mapping[str, Any]) -> State:
    """Weights under the names that MONAI's and torchvision's ResNets share, without heads."""
    import torch

    state: State = {}
    for key, value in found.items():
        name = str(key).removeprefix("module.").removeprefix("backbone.")
        first, _, rest = name.partition(".")
        if kind == "radimagenet" and first in _CHILDREN:
            name = f"{_CHILDREN[first]}.{rest}"
        if first not in ("fc", "conv_seg") and isinstance(value, torch.Tensor):
            state[name] = value
    return state


def _without_biases(state: State) -> State:
    """The same function without biases: each goes into the mean that is subtracted after it."""
    state = dict(state)
    for name in [k for k in state if re.search(r"(conv\d|downsample\.0)\.bias$", k)]:
        bias = state.pop(name)
        norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        mean = norm.replace(".bias", ".running_mean")
        if mean in state and state[mean].shape == bias.shape:
            state[mean] = state[mean] - bias
    return state


def _network(kind: Kind, state: State) -> torch.nn.Module:
    """A ResNet without weights, of the depth that the names tell; else ResNet-50."""
    import torch
    from monai.networks.nets.resnet import ResNet

    blocks = [
        {m[1] for k in state if (m := re.match(rf"layer{level}\.(\d+)\.", k))}
        for level in range(1, 5)
    ]
    depths = [len(b) for b in blocks]
    told = all(depths) and kind == "medicalnet"
    simple = told and not any(k.endswith("conv3.weight") for k in state)
    with torch.device("meta"):
        network: torch.nn.Module = ResNet(
            block="basic" if simple else "bottleneck",
            layers=depths if told else [3, 4, 6, 3],
            block_inplanes=_WIDTHS,
            spatial_dims=3 if kind == "medicalnet" else 2,
            n_input_channels=1 if kind == "medicalnet" else 3,
            conv1_t_stride=2,
            shortcut_type="A" if simple and not any(".downsample." in k for k in state) else "B",
            feed_forward=False,
            bias_downsample=False,
        )
    return network


def _fill(network: torch.nn.Module, state: State) -> list[str]:
    """Put weights where they belong; what does not fit, by name."""
    import torch

    # Old files lack the counts of batches, which are of no use here.
    counts = {k: torch.zeros((), dtype=torch.long) for k in network.state_dict() if _counts(k)}
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


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _dilate(network: Any) -> None:
    """MedicalNet's last two levels keep the resolution and look further apart instead."""
    from torch import nn

    for level, far in ((network.layer3, 2), (network.layer4, 4)):
        for part in level.modules():
            if isinstance(part, nn.Conv3d):
                part.stride = (1, 1, 1)
                if part.kernel_size == (3, 3, 3):
                    part.dilation = part.padding = (far, far, far)
        skip = level[0].downsample
        if isinstance(skip, partial):
            level[0].downsample = partial(skip.func, **(skip.keywords | {"stride": 1}))


def _as_in_keras(network: Any) -> None:
    """Keras's ResNet-50 strides in the first convolution of a block, and has its own epsilon."""
    from torch import nn

    for level in (network.layer2, network.layer3, network.layer4):
        level[0].conv1.stride, level[0].conv2.stride = (2, 2), (1, 1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1.001e-5
