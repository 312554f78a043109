"""A generator of whole volumes: what is trained, saved, registered and served."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort import channels
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import MapSpec, map_spec
from contracts.space import Space
from models import checkpoint
from models.config import Dim, SamplerName
from models.coverage import Coverage
from models.diffusion.denoiser import Denoiser, Estimate, condition_vector
from models.diffusion.sampler import OnStep, Sampler
from models.generator_config import GeneratorConfig, from_json, sampling_config, to_json
from models.prior.prior import CLIP, Prior

Array = NDArray[np.float32]

CONFIG_FILE = "generator.json"
# Volumes are always denoised two at a time, the last one beside a copy of itself where it would be
# alone: the sums inside a convolution may be ordered by batch size, and a sample must not depend on
# that. (PyTorch also takes a path about four times slower for a single volume on CPUs.)
_BATCH = 2


class _Noise:
    """White noise, one stream per seed: NumPy's is fixed across versions and devices, torch's is
    not."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]

    def draw(self, shape: tuple[int, ...]) -> Array:
        """Returns the next numbers of each stream, (n, *shape)."""
        return np.stack([one.standard_normal(shape, dtype=np.float32) for one in self._streams])


class Generator:
    """Samples volumes of FA and MD, or of more maps, for a given age and sex.

    Parameters
    ----------
    config, prior : see there.
    denoiser : with a trained network; default: one with a freshly initialised network.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        prior: Prior,
        denoiser: Denoiser | None = None,
    ) -> None:
        self.config = config
        self.prior = prior
        self.denoiser = denoiser or Denoiser(
            config.dim, prior, config.network, config.diffusion.path, config.drop_condition > 0
        )
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
    def sites(self) -> tuple[str, ...]:
        """Sites that it can be asked for; empty where it was not told sites."""
        return self.prior.sites

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the generator comes from."""
        return self.config.provenance

    def encode(self, volumes: Array, masks: NDArray[np.bool_]) -> Array:
        """Returns volumes in physical units as the generator sees them; see `cohort.channels`."""
        return channels.encode(volumes, masks, self.maps)

    def sample(
        self,
        conditions: Sequence[Condition],
        seeds: Sequence[int],
        steps: int = 16,
        on_step: OnStep | None = None,
        sampler: SamplerName | None = None,
        guidance: float = 1.0,
        masks: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Draws one volume per condition.

        A sample is fixed by its condition, seed, steps, sampler, guidance and mask alone: neither
        the other samples nor their order change it. Another number of torch threads, or another
        processor, may round otherwise (about 1e-6); who needs equal bytes fixes the threads, as
        `serving` does.

        Parameters
        ----------
        steps : network evaluations per sample; twice as many with a guidance other than 1.
        on_step : called with (steps done, steps in all).
        sampler : another than the generator's own.
        guidance : factor on what the network makes of the condition, see `Estimate.guided`.
            The volume is what is expected of a brain of its shape, and a residual around it. The
            former, which carries most of age and sex, and the closed-form Gaussian are not
            touched: guidance amplifies what the network adds for the condition beyond that
            regression.
        masks : (n, X, Y, Z), brains that the volumes are to have, instead of random ones.

        Returns
        -------
        (n, maps, X, Y, Z) in physical units.

        Raises
        ------
        ValueError : if conditions and seeds differ in number, or steps < 1.
        UserError : if a site is unknown, a guidance other than 1 is asked of a generator
            without a null token, or a mask is on another grid, empty, or outside of what the
            generator can reach.
        """
        if guidance != 1 and not self.denoiser.null_token:
            raise UserError(
                f"guidance {guidance:g} needs a generator that was trained with conditions "
                "withheld, this one was not: set loop.drop_condition of its section of "
                "params.yaml (0.1, say) and train again, or leave guidance at 1"
            )
        if len(conditions) != len(seeds):
            raise ValueError(
                f"expected one seed per condition, got {len(conditions)}, {len(seeds)}"
            )
        if masks is not None:
            self._check_masks(masks, len(seeds))
        out = np.empty((len(seeds), len(self.maps), *self.space.shape), dtype=np.float32)
        total = steps * -(-len(seeds) // _BATCH)
        chosen_sampler = self._sampler(sampler or self.config.diffusion.sampler, steps)
        for start in range(0, len(seeds), _BATCH):
            chosen = [min(start + k, len(seeds) - 1) for k in range(_BATCH)]
            report: OnStep | None = None
            if on_step is not None:
                base = steps * (start // _BATCH)

                def report(step: int, _: int, base: int = base, tell: OnStep = on_step) -> None:
                    tell(base + step, total)

            drawn = self._draw(
                [conditions[i] for i in chosen],
                [seeds[i] for i in chosen],
                chosen_sampler,
                report,
                guidance,
                None if masks is None else masks[chosen],
            )
            out[start : start + _BATCH] = drawn[: len(seeds) - start]
        return out

    def _draw(
        self,
        conditions: Sequence[Condition],
        seeds: Sequence[int],
        sampler: Sampler,
        on_step: OnStep | None,
        guidance: float,
        masks: NDArray[np.bool_] | None,
    ) -> Array:
        device = self.denoiser.mask.device
        noise = _Noise(seeds)
        expected = self._expected(noise, conditions, masks)
        shown = torch.from_numpy(expected).to(device)
        condition = condition_vector(conditions, self.sites).to(device)
        self.denoiser.eval()

        def draw() -> Tensor:
            return torch.from_numpy(noise.draw(self._map_shape)).to(device)

        def denoise(x: Tensor, t: float) -> Estimate:
            time = torch.full((len(x),), t, device=device)
            estimate: Estimate = self.denoiser(x, time, condition, shown)
            if guidance != 1:
                all_withheld = torch.ones(len(x), dtype=torch.bool, device=device)
                null = self.denoiser(x, time, condition, shown, withheld=all_withheld)
                estimate = estimate.guided(null, guidance)
            # Near the noise, DDPM divides an error of the network by next to no signal.
            return estimate.clipped(CLIP) if self.config.diffusion.path == "ddpm" else estimate

        with torch.inference_mode():
            residual = sampler(denoise, draw, self.denoiser.mask, on_step)
        encoded = self.prior.volumes(residual.cpu().numpy(), expected)
        return channels.decode(encoded, self.maps)

    def sample_closed_form(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> Array:
        """Draws one volume per condition from the closed-form Gaussian model, without the network.

        For the path ``flow`` and the sampler ``dpm++`` they are, nearly, what `sample` gives for
        these seeds with an untrained network (exactly so in one step).
        What a generator is better than them is what training has added.

        Returns
        -------
        (n, maps, X, Y, Z) in physical units.
        """
        out = np.empty((len(seeds), len(self.maps), *self.space.shape), dtype=np.float32)
        basis = self.denoiser.basis
        for i, (condition, seed) in enumerate(zip(conditions, seeds, strict=True)):
            noise = _Noise([seed])
            expected = self._expected(noise, [condition], None)
            white = torch.from_numpy(noise.draw(self._map_shape)).to(basis.power.device)
            with torch.inference_mode():
                residual = basis.draw(white).cpu().numpy()
            encoded = self.prior.volumes(residual, expected)
            out[i] = channels.decode(encoded, self.maps)[0]
        return out

    @property
    def _map_shape(self) -> tuple[int, ...]:
        return (self.prior.map_count, *self.prior.mask.shape)

    def _expected(
        self, noise: _Noise, conditions: Sequence[Condition], masks: NDArray[np.bool_] | None
    ) -> Array:
        """Returns what is expected of brains of random shapes, or of shapes with given masks."""
        # The noise is drawn in either case, so that a mask changes the shape alone.
        white = noise.draw(self.prior.shape_field.noise_shape)
        if masks is None:
            shapes = self.prior.draw_shapes(white, conditions)
        else:
            shapes = self.prior.shapes_of_masks(masks, conditions)
        return self.prior.expected(shapes, conditions)

    def _check_masks(self, masks: NDArray[np.bool_], count: int) -> None:
        """Raises a UserError unless there are as many brain masks that can be generated."""
        expected = (count, *self.space.shape)
        if masks.shape != expected or masks.dtype != np.bool_:
            raise UserError(
                f"expected one boolean mask per volume on the grid {self.space.name}, shape "
                f"{expected}, found {masks.dtype} of shape {masks.shape}: resample the masks"
            )
        for i, mask in enumerate(masks):
            if not mask.any():
                raise UserError(f"mask {i} is empty: expected a brain")
            beyond = int((mask & ~self.prior.mask).sum())
            if beyond:
                raise UserError(
                    f"mask {i}: {beyond} of its {int(mask.sum())} voxels lie where no training "
                    "subject has brain: register it to the space of the generator, or intersect "
                    "it with Generator.prior.mask"
                )

    def _sampler(self, name: SamplerName, steps: int) -> Sampler:
        key = name, steps, self.denoiser.mask.device  # training moves it
        if key not in self._samplers:
            self._samplers[key] = Sampler(name, self.denoiser.path, self.denoiser.basis, steps)
        return self._samplers[key]

    def with_provenance(self, provenance: dict[str, Any]) -> Generator:
        """Returns the same generator with another provenance."""
        return Generator(replace(self.config, provenance=provenance), self.prior, self.denoiser)

    @property
    def digest(self) -> str:
        """Short hash of everything that shapes its samples."""
        content = hashlib.sha256(json.dumps(sampling_config(self.config, self.sites)).encode())
        for name, tensor in sorted(
            checkpoint.all_tensors(self.denoiser.network, self.prior).items()
        ):
            content.update(name.encode())
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Writes generator.json and safetensors files into `folder`; nothing is pickled."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for name, tensors in checkpoint.tensors_by_file(self.denoiser.network, self.prior).items():
            save_file(tensors, folder / name)
        content = {**to_json(self.config, self.sites), "digest": self.digest}
        (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Generator:
        """Reads what `save` wrote; `models.adapters.adapted.load` reads adapted generators too.

        Raises
        ------
        UserError : if a file is missing or cut short, the weights do not fit the config, or the
            folder holds an adapted generator.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / CONFIG_FILE
        if not path.exists():
            raise UserError(f"no generator in {folder}: train one with `dvc repro` first")
        try:
            content = json.loads(path.read_text())
            if "adapters" in content:
                raise UserError(
                    f"the generator in {folder} is an adapter of another one, its base: expected a "
                    "base here; `models.adapters.adapted.load` reads both kinds"
                )
            config, sites = from_json(content)
            generator = cls(config, checkpoint.load_prior(folder, sites))
            generator.denoiser.network.load_state_dict(load_file(folder / checkpoint.WEIGHTS_FILE))
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
