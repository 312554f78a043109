"""A generator of whole volumes: what is trained, saved, registered and served."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import MapSpec, map_spec
from contracts.params import parse
from contracts.space import Space
from models import representation
from models.autoencoder import Autoencoder
from models.config import Dim, LatentConfig, NetworkConfig, PathConfig, SamplerName
from models.coverage import Coverage
from models.denoiser import Denoiser, Estimate
from models.field import Covariance
from models.latent import LatentPrior
from models.prior import FARTHEST, Prior
from models.sampler import OnStep, Sampler

Array = NDArray[np.float32]

FORMAT = 3
CONFIG_FILE, WEIGHTS_FILE, PRIOR_FILE = "generator.json", "weights.safetensors", "prior.safetensors"
LATENT_FILE = "latent.safetensors"
# Volumes are always denoised two at a time, the last one beside itself where it is alone: the
# sums inside a convolution may be ordered by batch size, and a sample must not depend on that.
# (PyTorch also takes a path about four times slower for a single volume on CPUs.)
_TOGETHER = 2


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What a generator is, beside its weights.

    Parameters
    ----------
    dim : ``2d`` (slice-wise network) or ``3d`` (volume-wise).
    space : grid of its volumes.
    maps : names of its maps, in channel order.
    coverage : whom it was trained on.
    latent : 3D only: the autoencoder whose latents the network sees; None: it sees voxels.
    provenance : where it comes from (data, parameters, run); not part of its digest.

    Raises
    ------
    ValueError : if it is 2D and latent.
    """

    dim: Dim
    space: Space
    maps: tuple[str, ...]
    network: NetworkConfig
    path: PathConfig
    coverage: Coverage
    latent: LatentConfig | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.latent is not None and self.dim != "3d":
            raise ValueError("latents are for 3D: set latent to null")


def condition_vector(conditions: Sequence[Condition]) -> Tensor:
    """Age and sex as the network reads them, (n, 2), of order one."""
    rows = [((c.age - 50.0) / 20.0, 0.5 if c.sex == "M" else -0.5) for c in conditions]
    return torch.tensor(rows, dtype=torch.float32)


class Generator:
    """Samples FA and MD volumes for a given age and sex.

    Parameters
    ----------
    config, prior : see there.
    denoiser : its network's weights; default: freshly initialised.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        prior: Prior | LatentPrior,
        denoiser: Denoiser | None = None,
    ) -> None:
        self.config = config
        self.prior = prior
        self.denoiser = denoiser or Denoiser(config.dim, prior.start, config.network, config.path)
        self._samplers: dict[tuple[SamplerName, int, torch.device], Sampler] = {}

    @property
    def dim(self) -> Dim:
        """``2d`` or ``3d``."""
        return self.config.dim

    @property
    def space(self) -> Space:
        """Grid of the volumes."""
        return self.config.space

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """Maps, in channel order."""
        return tuple(map_spec(name) for name in self.config.maps)

    @property
    def coverage(self) -> Coverage:
        """Whom it was trained on."""
        return self.config.coverage

    @property
    def age_range(self) -> tuple[float, float]:
        """Ages of its training subjects in years, to five years, see `Coverage.ages`."""
        return self.coverage.ages

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the generator comes from."""
        return self.config.provenance

    def encode(self, volumes: Array, masks: NDArray[np.bool_]) -> Array:
        """Volumes in physical units as the generator sees them, see `models.representation`."""
        return representation.encode(volumes, masks, self.maps)

    def decode(self, residual: Array, conditions: Sequence[Condition]) -> Array:
        """Volumes in physical units of what the denoiser makes of these people."""
        return representation.decode(self.prior.volume(residual, conditions), self.maps)

    def sample(
        self,
        conditions: Sequence[Condition],
        seeds: Sequence[int],
        steps: int = 16,
        on_step: OnStep | None = None,
        sampler: SamplerName | None = None,
    ) -> Array:
        """Draw one volume per condition.

        A sample is fixed by its condition, seed, steps and sampler alone: neither the other
        samples nor their order change it. Another number of torch threads, or another processor,
        may round otherwise (about 1e-6); who needs equal bytes fixes the threads, as `serving`
        does.

        Parameters
        ----------
        steps : network evaluations per sample.
        on_step : called with (evaluations done, evaluations in all).
        sampler : another than the generator's own.

        Returns
        -------
        (n, maps, X, Y, Z) in physical units.

        Raises
        ------
        ValueError : if conditions and seeds differ in number, or steps < 1.
        """
        if len(conditions) != len(seeds):
            raise ValueError(
                f"expected one seed per condition, got {len(conditions)}, {len(seeds)}"
            )
        out = np.empty((len(seeds), len(self.maps), *self.space.shape), dtype=np.float32)
        total = steps * -(-len(seeds) // _TOGETHER)
        chosen_sampler = self._sampler(sampler or self.config.path.sampler, steps)
        for start in range(0, len(seeds), _TOGETHER):
            chosen = [min(start + k, len(seeds) - 1) for k in range(_TOGETHER)]
            report: OnStep | None = None
            if on_step is not None:
                base = steps * (start // _TOGETHER)

                def report(step: int, _: int, base: int = base, tell: OnStep = on_step) -> None:
                    tell(base + step, total)

            drawn = self._draw(
                [conditions[i] for i in chosen], [seeds[i] for i in chosen], chosen_sampler, report
            )
            out[start : start + _TOGETHER] = drawn[: len(seeds) - start]
        return out

    def _draw(
        self,
        conditions: Sequence[Condition],
        seeds: Sequence[int],
        sampler: Sampler,
        on_step: OnStep | None,
    ) -> Array:
        device = self.denoiser.mask.device
        start = self.prior.start
        shape = (start.channels, *start.mask.shape)
        if isinstance(self.prior, LatentPrior):
            self.prior.autoencoder.to(device)
        # NumPy's stream is fixed across versions and devices, torch's is not.
        streams = [np.random.default_rng(seed) for seed in seeds]
        condition = condition_vector(conditions).to(device)
        mean = torch.from_numpy(start.mean(conditions)).to(device)
        self.denoiser.eval()

        def draw() -> Tensor:
            noise = np.stack([one.standard_normal(shape, dtype=np.float32) for one in streams])
            return torch.from_numpy(noise).to(device)

        def denoise(x: Tensor, t: float) -> Estimate:
            time = torch.full((len(x),), t, device=device)
            estimate: Estimate = self.denoiser(x, time, condition, mean)
            return estimate.bounded(FARTHEST) if self.config.path.unbounded else estimate

        with torch.inference_mode():
            residual = sampler(denoise, draw, self.denoiser.mask, on_step)
        return self.decode(residual.cpu().numpy(), conditions)

    def _sampler(self, name: SamplerName, steps: int) -> Sampler:
        key = name, steps, self.denoiser.mask.device  # training moves it
        if key not in self._samplers:
            self._samplers[key] = Sampler(name, self.denoiser.path, self.denoiser.waves, steps)
        return self._samplers[key]

    def with_provenance(self, provenance: dict[str, Any]) -> Generator:
        """The same generator with another provenance."""
        return Generator(replace(self.config, provenance=provenance), self.prior, self.denoiser)

    @property
    def digest(self) -> str:
        """Short hash of everything that shapes its samples."""
        content = hashlib.sha256(json.dumps(_to_json(self.config)["identity"]).encode())
        parts = {name: part for file in self._files().values() for name, part in file.items()}
        for name, tensor in sorted(parts.items()):
            content.update(name.encode())
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write generator.json and safetensors files into `folder`; nothing is pickled."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for name, tensors in self._files().items():
            save_file(tensors, folder / name)
        content = {**_to_json(self.config), "digest": self.digest}
        (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Generator:
        """Read what `save` wrote.

        Raises
        ------
        UserError : if a file is missing or cut short, or the weights do not fit the config.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / CONFIG_FILE
        if not path.exists():
            raise UserError(f"no generator in {folder}: train one with `dvc repro` first")
        try:
            content = json.loads(path.read_text())
            config = _from_json(content)
            prior = _prior_from(load_file(folder / PRIOR_FILE))
            if config.latent is None:
                generator = cls(config, prior)
            else:
                latent = _latent_from(load_file(folder / LATENT_FILE), prior, config.latent)
                generator = cls(config, latent)
            generator.denoiser.network.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"the generator in {folder} cannot be read ({reason}); copy or train it again"
            ) from error
        if content["digest"] != generator.digest:
            raise UserError(
                f"the generator in {folder} is not what was saved: its weights hash to "
                f"{generator.digest}, generator.json says {content['digest']}; copy it again"
            )
        return generator

    def _files(self) -> dict[str, dict[str, Tensor]]:
        """What is saved beside generator.json; no two tensors of all files have the same name."""
        network = _state(self.denoiser.network)
        if not isinstance(self.prior, LatentPrior):
            return {WEIGHTS_FILE: network, PRIOR_FILE: _tensors(self.prior)}
        latent = {f"autoencoder.{k}": v for k, v in _state(self.prior.autoencoder).items()}
        latent |= {f"latent.{k}": v for k, v in _tensors(self.prior.start).items()}
        return {
            WEIGHTS_FILE: network,
            PRIOR_FILE: _tensors(self.prior.voxels),
            LATENT_FILE: latent,
        }


def _state(module: Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def _tensors(prior: Prior) -> dict[str, Tensor]:
    parts: dict[str, Any] = {
        f"prior.{name}": getattr(prior, name)
        for name in ("coefficients", "mask", "scale", "knots", "gain")
    }
    for name in ("power", "modes", "variance"):
        parts[f"covariance.{name}"] = getattr(prior.covariance, name)
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in parts.items()}


def _prior_from(tensors: dict[str, Tensor]) -> Prior:
    parts: dict[str, dict[str, Any]] = {"prior": {}, "covariance": {}}
    for name, tensor in tensors.items():
        owner, field_name = name.split(".")
        parts[owner][field_name] = tensor.numpy()
    return Prior(covariance=Covariance(**parts["covariance"]), **parts["prior"])


def _latent_from(tensors: dict[str, Tensor], voxels: Prior, config: LatentConfig) -> LatentPrior:
    def below(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}

    autoencoder = Autoencoder(voxels.channels, config)
    autoencoder.load_state_dict(below("autoencoder."))
    return LatentPrior(voxels, autoencoder.eval(), _prior_from(below("latent.")))


def _to_json(config: GeneratorConfig) -> dict[str, Any]:
    identity = {
        "format": FORMAT,
        "dim": config.dim,
        "space": config.space.to_json(),
        "maps": [
            {"name": m.name, "unit": m.unit, "scale": m.scale} for m in map(map_spec, config.maps)
        ],
        "network": asdict(config.network),
        "path": asdict(config.path),
        "latent": config.latent and asdict(config.latent),
    }
    coverage = config.coverage.to_json()
    return {"identity": identity, "coverage": coverage, "provenance": config.provenance}


def _from_json(content: dict[str, Any]) -> GeneratorConfig:
    identity = content["identity"]
    if identity["format"] != FORMAT:
        raise UserError(
            f"generator format {identity['format']} is not {FORMAT}: use the version of this "
            "software that wrote it"
        )
    for stored in identity["maps"]:
        if map_spec(stored["name"]).scale != stored["scale"]:
            raise UserError(f"map {stored['name']} was scaled by {stored['scale']} in training")
    return GeneratorConfig(
        dim=identity["dim"],
        space=Space.from_json(identity["space"]),
        maps=tuple(m["name"] for m in identity["maps"]),
        network=parse(NetworkConfig, identity["network"], "network"),
        path=parse(PathConfig, identity["path"], "path"),
        coverage=Coverage.from_json(content.get("coverage", {})),
        latent=identity["latent"] and parse(LatentConfig, identity["latent"], "latent"),
        provenance=content["provenance"],
    )
