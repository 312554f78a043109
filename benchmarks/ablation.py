"""What each part of our generators is worth: `python benchmarks/ablation.py`.

Each part is left out in turn; the rest is fitted anew, trained for the same CPU seconds and judged
as in `benchmarks.contest`. With `--seconds 0` the networks stay untrained, which shows what the
closed form owes to its parts.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a file: its folder, not the project, leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import click

from benchmarks import contest
from contracts.console import command, say
from contracts.errors import UserError

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant, Remake
    from contracts.condition import Condition
    from models.config import Dim
    from models.field import Covariance
    from models.generator import Generator
    from models.prior import Prior
    from training.framing import Framed
    from training.settings import TrainSettings

WHOLE = "whole"
_EVALUATIONS = 8


def contestants(dim: Dim, params: Path) -> dict[str, Contestant]:
    """The whole, and the whole without each part, by name."""
    from benchmarks.contestants import Contestant, ours

    def start_none(settings: TrainSettings) -> TrainSettings:
        path = replace(settings.path, start="none", prediction="v")
        return replace(settings, path=path)

    remade: dict[str, Remake] = {
        "without frame": _without_frame,
        "without dispersion": _without_dispersion,
        "without directions": _without_directions,
        "without modes": _without_modes,
        "without spectrum": _without_spectrum,
        "without curves": _without_curves,
        "without local sd": _without_local_sd,
        "without regression": _without_regression,
        "without template inputs": _without_template,
        "without weights": _without_weights,
    }
    out = {
        WHOLE: Contestant(ours(dim, params)),
        "without Gaussian start": Contestant(ours(dim, params, start_none)),
    }
    return out | {k: Contestant(ours(dim, params, remake=v)) for k, v in remade.items()}


# They say nothing before the network is trained.
_TRAINED_ONLY = ("without Gaussian start", "without template inputs", "without weights")


def _without_frame(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """Voxels are those of the grid: brains have no shape, and nothing follows the outline."""
    from models.generator import Generator
    from models.prior import Prior

    # Fewer channels: the network is another one.
    return Generator(generator.config, Prior.fit(framed.encoded, framed.reach, conditions))


def _without_dispersion(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """Displacements are as large as registration finds them."""
    from models.prior import Prior

    frame = framed.frame
    return _with(generator, Prior.fit(framed.standard, framed.reach, conditions, frame=frame))


def _without_directions(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """Modes are what subjects have in common, as far as it holds in others, and no more."""
    prior = _voxels(generator)
    return _with(generator, _refitted(prior, framed, conditions, as_a_whole=False))


def _without_modes(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """The field is stationary, its power that of all that the mean leaves over."""
    import numpy as np

    from models.field import stationary_power

    prior = _even(_voxels(generator))
    none = np.zeros((0, prior.scale.size), dtype=np.float32)
    power = stationary_power(
        prior.normal(framed.standard, conditions), prior.mask, prior.importance(), none
    ).astype(np.float32)
    bare = replace(
        prior.covariance,
        power=power,
        modes=prior.covariance.modes[:0],
        variance=prior.covariance.variance[:0],
    )
    return _with(generator, _drawn(prior, bare))


def _without_spectrum(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """The modes remain, and what they leave is white."""
    import numpy as np

    prior = _voxels(generator)
    power = prior.covariance.power
    white = np.broadcast_to(power.mean(axis=(1, 2, 3), keepdims=True), power.shape)
    covariance = replace(prior.covariance, power=np.ascontiguousarray(white))
    return _with(generator, _drawn(prior, covariance))


def _without_curves(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """Every voxel's values are normal."""
    import numpy as np

    prior = _voxels(generator)
    straight = np.linspace(-2, 2, len(prior.knots), dtype=np.float32)[:, None, None, None, None]
    knots = np.ascontiguousarray(np.broadcast_to(straight, prior.knots.shape))
    return _with(generator, _refitted(replace(prior, knots=knots), framed, conditions))


def _without_local_sd(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """Values vary more where the field does."""
    return _with(generator, _even(_voxels(generator)))


def _without_regression(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """One mean for all ages and both sexes: the network alone is told them."""
    import numpy as np

    from contracts.condition import Condition
    from models.gaussian import design
    from models.prior import Prior

    anyone = [Condition(50.0, "F")] * len(conditions)
    whole = _voxels(generator)
    prior = Prior.fit(framed.standard, whole.mask, anyone, frame=whole.frame)
    coefficients = np.zeros_like(prior.coefficients)
    coefficients[0] = np.tensordot(design(anyone[:1])[0], prior.coefficients, axes=1)
    return _with(generator, replace(prior, coefficients=coefficients))


def _without_template(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """The network does not see the conditional mean and the local scale."""
    still = 2 * _voxels(generator).channels

    def hide(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = inputs
        x = x.clone()
        x[:, -still:] = 0
        return (x, *others)

    generator.denoiser.network.register_forward_pre_hook(hide)
    return generator


def _without_weights(
    generator: Generator, framed: Framed, conditions: Sequence[Condition]
) -> Generator:
    """In training, errors of all voxels count alike."""
    denoiser = generator.denoiser
    denoiser.weight = denoiser.mask.expand_as(denoiser.weight).clone()
    return generator


def _voxels(generator: Generator) -> Prior:
    return generator.prior.start


def _refitted(
    prior: Prior, framed: Framed, conditions: Sequence[Condition], as_a_whole: bool = True
) -> Prior:
    from models.directions import directions
    from models.field import Covariance

    ways = directions(framed.frame) / prior.scale
    fields = _even(prior).normal(framed.standard, conditions)
    ways = ways if as_a_whole else ways[:0]
    return _drawn(prior, Covariance.fit(fields, prior.mask, prior.importance(), ways))


def _drawn(prior: Prior, covariance: Covariance) -> Prior:
    """With another field; values keep their distributions."""
    from models.prior import local_sd

    return replace(prior, covariance=covariance, sd=local_sd(covariance, prior.mask))


def _even(prior: Prior) -> Prior:
    """As if its field varied alike everywhere."""
    import numpy as np

    return replace(prior, sd=np.ones_like(prior.sd))


def _with(generator: Generator, prior: Prior) -> Generator:
    """The same network, freshly initialised, on another prior."""
    from models.generator import Generator

    made = Generator(generator.config, prior)
    made.denoiser.network.load_state_dict(generator.denoiser.network.state_dict())
    return made


@command()
@contest.options
@click.argument("names", nargs=-1)
@click.option("--dim", type=click.Choice(["2d", "3d"]), default="3d", show_default=True)
@click.option("--seconds", default=200.0, show_default=True, help="CPU seconds of training each.")
@click.option("--samples", default=64, show_default=True, help="Volumes of each.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("data/work/ablation"),
    show_default=True,
    help="What was finished; delete it to start anew.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: benchmarks/ablation-<dim>-<s>.json."
)
def main(
    names: tuple[str, ...],
    dim: Dim,
    seconds: float,
    samples: int,
    repeats: int,
    cohort: contest.Cohort,
    work: Path,
    out: Path | None,
) -> None:
    """Leave out each part of a generator in turn, train the rest and judge it.

    NAMES: some only, such as "whole" "without modes"; by default all that `--seconds` allow.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks.scores import table
    from contracts.params import PARAMS_FILE
    from models.identity import FORMAT

    known = contestants(dim, PARAMS_FILE)
    if unknown := sorted(set(names) - set(known)):
        raise UserError(f"no part {', '.join(unknown)}: expected some of {', '.join(known)}")
    chosen = names or [name for name in known if seconds or name not in _TRAINED_ONLY]
    held = contest.Contest.of(cohort, samples, seconds, repeats)
    settings = (
        held.train.digest, held.test.digest, dim, seconds, samples, FORMAT,
        PARAMS_FILE.read_bytes(),
    )  # fmt: skip
    work = work / hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    torch.set_num_threads(1)
    with threadpool_limits(1):
        report = held.report(
            held.rows(
                [(name, known[name], (_EVALUATIONS,)) for name in chosen],
                lambda name, seed: work / f"{name.replace(' ', '-')}-{seed}",
            )
        )
    click.echo(f"{dim}, {seconds:g} CPU seconds of training each; n = {report['n']}\n")
    click.echo(table(report["results"]))
    out = out or Path(__file__).with_name(f"ablation-{dim}-{seconds:g}.json")
    out.write_text(json.dumps(report, indent=1) + "\n")
    say(f"written: {out}")


if __name__ == "__main__":
    main()
