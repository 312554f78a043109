"""Features of volumes from ResNets that were trained on other medical images.

The weights are not part of this project and are downloaded only where a user names them. Without
weights there is a `UserError`; no other network takes their place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.console import progress
from contracts.errors import UserError
from contracts.maps import MAPS, MapSpec
from evaluation.pretrained_weights import (
    SOURCE,
    TITLE,
    NetworkName,
    State,
    fill,
    fold_biases,
    read_weights,
)

if TYPE_CHECKING:
    import torch

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

_WIDTHS = [64, 128, 256, 512]
# The mean and the standard deviation over the brains of the simulated cohort, which is calibrated
# on CamCAN; in physical units.
_BRAIN = {"fa": (0.22, 0.17), "md": (1.0e-3, 0.38e-3)}
# Images whose longest side is shorter than this are enlarged. The networks were trained on images
# of whole organs with many pixels, and halve the resolution three and five times.
_LONGEST_SIDE = {"medicalnet": 96, "radimagenet": 224}
_CENTRE = 0.4
# The mean blue, green and red of ImageNet, which Keras subtracts from an image of [0, 1].
_KERAS_MEAN = (0.406, 0.456, 0.485)


def load(
    name: NetworkName, where: str | Path, maps: tuple[MapSpec, ...] = MAPS
) -> FeatureExtractor:
    """Returns a feature extractor with the weights of a file.

    ``medicalnet`` is a 3D ResNet-10 to -200 (Chen et al. 2019, Med3D). Any of Tencent's files can
    be used; its names tell the depth. The network is MONAI's ResNet, with the last two levels
    dilated and not strided, as the weights were trained.
    (``monai.networks.nets.resnet10(pretrained=True)`` strides there and gives other features.)

    ``radimagenet`` is a 2D ResNet-50 (Mei et al. 2022), in the authors' PyTorch layout, in
    torchvision's, or in that of conversions from Keras (``RadImageNet-ResNet50_notop.pth``).
    The latter differs in strides, biases and the scale of its input.

    Parameters
    ----------
    where : a file, or ``hf:OWNER/NAME/FILE`` on Hugging Face's hub, whose own variables such as
        HF_HOME and HF_ENDPOINT apply.
    maps : of the volumes whose features are computed.

    Raises
    ------
    UserError : if the file is absent, cannot be downloaded or read, or has other weights.
    """
    path, state = read_weights(name, where)
    # Only Keras's convolutions have biases.
    keras = name == "radimagenet" and "conv1.bias" in state
    if keras:
        state = fold_biases(state)
    network = _empty_network(name, state)
    problems = fill(network, state)
    if problems:
        more = f" and {len(problems) - 1} more such" if problems[1:] else ""
        raise UserError(
            f"{path} does not hold the weights of a {TITLE[name]} ResNet: {problems[0]}{more}; "
            f"get {SOURCE[name]}"
        )
    if name == "medicalnet":
        _dilate(network)
    elif keras:
        _match_keras(network)
    return FeatureExtractor(name, maps, network.eval().requires_grad_(False), keras)


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """A pretrained network that computes features of volumes, see `load`.

    Parameters
    ----------
    maps : of the volumes.
    keras : whether the weights come from Keras, which scales its input in another way.
    """

    name: NetworkName
    maps: tuple[MapSpec, ...]
    network: torch.nn.Module
    keras: bool = False

    def __call__(self, volumes: Float32Array) -> Float64Array:
        """Returns the features of each volume, which do not depend on the other volumes.

        MedicalNet: values are standardised by the mean and the standard deviation of a healthy
        brain, and the background is set to that mean. (The authors standardise by each volume's
        own, which hides a wrong level of values, and fill the background with noise.) Volumes are
        enlarged to 96 voxels along their longest axis. Features are the averages over space of
        the last level, 512 or 2048 per map.

        RadImageNet: values are divided by the map's scale; of each plane, the central 40 % of the
        slices are used (as by Guo et al. 2024, MAISI) and enlarged to 224 pixels. Features are
        the averages over space and slices, with the three planes side by side: 6144 per map. An
        average over planes would dilute the errors of a generator of slices, which show in two
        of the planes.

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
        features_of = self._volume_features if self.name == "medicalnet" else self._slice_features
        # TensorFloat-32 of GPUs would round to three digits.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        rows = []
        with torch.inference_mode(), exact:
            for volume in progress(volumes, len(volumes), f"features of {TITLE[self.name]}"):
                images = zip(volume, self.maps, strict=True)
                parts = [features_of(m.clip(np.nan_to_num(v)), m, device) for v, m in images]
                rows.append(torch.cat(parts).double().cpu().numpy())
        return np.stack(rows)

    def _volume_features(
        self, values: Float32Array, spec: MapSpec, device: torch.device
    ) -> torch.Tensor:
        """Returns the 3D network's features of one map (X, Y, Z); (F,)."""
        import torch

        mean, sd = _BRAIN[spec.name]
        standard = np.where(values > 0, (values - mean) / sd, 0).astype(np.float32)
        image = torch.from_numpy(standard).to(device)[None, None]
        features: torch.Tensor = self.network(_enlarge(image, _LONGEST_SIDE[self.name]))[0]
        return features

    def _slice_features(
        self, values: Float32Array, spec: MapSpec, device: torch.device
    ) -> torch.Tensor:
        """Returns the 2D network's features of one map (X, Y, Z); (3 F,)."""
        import torch

        image = torch.from_numpy(spec.to_network(values)).to(device)
        offset = torch.tensor(_KERAS_MEAN if self.keras else (0.5, 0.5, 0.5), device=device)
        gain = 1 if self.keras else 2
        planes = []
        for axis, count in enumerate(image.shape):
            first, last = (int(count * (0.5 + side * _CENTRE / 2)) for side in (-1, 1))
            slices = image.movedim(axis, 0)[first : max(last, first + 1), None]
            grey = _enlarge(slices, _LONGEST_SIDE[self.name])
            planes.append(self.network((grey - offset[:, None, None]) * gain).mean(dim=0))
        return torch.cat(planes)


def _enlarge(images: torch.Tensor, side: int) -> torch.Tensor:
    """Interpolates (n, 1, ...) images linearly to at least `side` along their longest axis."""
    from torch.nn.functional import interpolate

    shape = images.shape[2:]
    factor = side / max(shape)
    if factor <= 1:
        return images
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return interpolate(images, size=[round(n * factor) for n in shape], mode=mode)


def _empty_network(name: NetworkName, state: State) -> torch.nn.Module:
    """Returns a ResNet without weights: of the depth that MedicalNet's names tell, or ResNet-50."""
    import torch
    from monai.networks.nets.resnet import ResNet

    blocks = [
        {m[1] for k in state if (m := re.match(rf"layer{level}\.(\d+)\.", k))}
        for level in range(1, 5)
    ]
    depths = [len(b) for b in blocks]
    known_depth = all(depths) and name == "medicalnet"
    basic_blocks = known_depth and not any(k.endswith("conv3.weight") for k in state)
    with torch.device("meta"):
        network: torch.nn.Module = ResNet(
            block="basic" if basic_blocks else "bottleneck",
            layers=depths if known_depth else [3, 4, 6, 3],
            block_inplanes=_WIDTHS,
            spatial_dims=3 if name == "medicalnet" else 2,
            n_input_channels=1 if name == "medicalnet" else 3,
            conv1_t_stride=2,
            shortcut_type="A"
            if basic_blocks and not any(".downsample." in k for k in state)
            else "B",
            feed_forward=False,
            bias_downsample=False,
        )
    return network


def _dilate(network: Any) -> None:
    """Replaces the strides of the last two levels by dilation, as MedicalNet was trained."""
    from torch import nn

    for level, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for part in level.modules():
            if isinstance(part, nn.Conv3d):
                part.stride = (1, 1, 1)
                if part.kernel_size == (3, 3, 3):
                    part.dilation = part.padding = (dilation,) * 3
        skip = level[0].downsample
        if isinstance(skip, partial):
            level[0].downsample = partial(skip.func, **(skip.keywords | {"stride": 1}))


def _match_keras(network: Any) -> None:
    """Sets strides and the epsilon of normalisations as in the ResNet-50 of Keras."""
    from torch import nn

    for level in (network.layer2, network.layer3, network.layer4):
        level[0].conv1.stride, level[0].conv2.stride = (2, 2), (1, 1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1.001e-5
