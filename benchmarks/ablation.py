"""What each part of our generators is worth: `python -m benchmarks.ablation`.

Each part is left out in turn; the rest is fitted anew, trained for the same CPU seconds and scored
as in `benchmarks.contest`. With `--seconds 0` the networks stay untrained, which shows what each
part of the prior is worth by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import contest
from cohort.group_template import AXES
from contracts.console import command
from contracts.errors import UserError
from contracts.paths import WORK

if TYPE_CHECKING:
    from benchmarks.brains import RegisteredSubjects
    from benchmarks.contestants import Contestant, Modify
    from models.config import Dim
    from models.generator import Generator
    from models.prior.prior import Prior

WHOLE = "whole"
_EVALUATIONS = 8


def contestants(dim: Dim, params: Path) -> dict[str, Contestant]:
    """The whole generator, and the generator without each part, by name."""
    from benchmarks.contestants import Contestant, ours

    modified: dict[str, Modify] = {
        "without displacements": _without_displacements,
        "without modes": _without_modes,
        "without spectrum": _without_spectrum,
        "without regression": _without_regression,
        "without outline": _without_outline,
    }
    whole = {WHOLE: Contestant(ours(dim, params))}
    return whole | {k: Contestant(ours(dim, params, modify=v)) for k, v in modified.items()}


def _without_displacements(generator: Generator, seen: RegisteredSubjects) -> Generator:
    """Every brain has the template's inner shape; the distance to the boundary still varies."""
    import numpy as np

    prior = generator.prior
    scale, coefficients = prior.scale.copy(), prior.coefficients.copy()
    # A displacement of a millionth of a voxel: a scale has to be positive.
    scale[-AXES:] = np.float32(1e-6)
    coefficients[:, -AXES:] = 0
    return _with_prior(generator, replace(prior, scale=scale, coefficients=coefficients))


def _without_modes(generator: Generator, seen: RegisteredSubjects) -> Generator:
    """Only the stationary part of the covariance, which then has to explain all residuals."""
    import numpy as np

    from models.prior.covariance import Covariance, stationary_power

    prior = generator.prior
    fields = np.stack([
        prior.residual(*one)[: prior.map_count]
        for one in zip(seen.encoded, seen.displacements, seen.conditions, strict=True)
    ])  # fmt: skip
    scale, covariance = prior.scale[: prior.map_count], prior.map_covariance
    none = np.zeros((0, scale.size), dtype=np.float32)
    power = stationary_power(fields, prior.mask, scale, none).astype(np.float32)
    bare = Covariance(power, covariance.modes[:0], covariance.variance[:0])
    return _with_prior(generator, replace(prior, map_covariance=bare))


def _without_spectrum(generator: Generator, seen: RegisteredSubjects) -> Generator:
    """What the modes leave over of the maps is white noise, independent from voxel to voxel."""
    import numpy as np

    prior = generator.prior
    power = prior.map_covariance.power
    white = np.broadcast_to(power.mean(axis=(1, 2, 3), keepdims=True), power.shape)
    covariance = replace(prior.map_covariance, power=np.ascontiguousarray(white))
    return _with_prior(generator, replace(prior, map_covariance=covariance))


def _without_regression(generator: Generator, seen: RegisteredSubjects) -> Generator:
    """One mean for all ages and both sexes; only the network knows the condition."""
    import numpy as np

    from cohort.regression import design
    from contracts.condition import Condition

    same = [Condition(50.0, "F")] * len(seen.conditions)
    fitted = replace(seen, conditions=same).prior()
    coefficients = np.zeros_like(fitted.coefficients)
    coefficients[0] = np.tensordot(design(same[:1])[0], fitted.coefficients, axes=1)
    outline = generator.prior.outline_sigma
    prior = replace(fitted, coefficients=coefficients, outline_sigma=outline)
    return _with_prior(generator, prior)


def _without_outline(generator: Generator, seen: RegisteredSubjects) -> Generator:
    """Outlines are as the Gaussian field makes them, but for specks."""
    return _with_prior(generator, replace(generator.prior, outline_sigma=0.0))


def _with_prior(generator: Generator, prior: Prior) -> Generator:
    """A generator with the same untrained network and another prior."""
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
    default=WORK / "ablation",
    show_default=True,
    help="What was finished; delete it to start anew.",
)
def main(
    names: tuple[str, ...],
    name: str | None,
    dim: Dim,
    seconds: float,
    samples: int,
    repeats: int,
    source: contest.Source,
    work: Path,
) -> None:
    """Leave out each part of a generator in turn, train the rest and score it.

    NAMES: some only, such as "whole" "without modes"; by default all.
    """
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks import table_definitions
    from contracts.params import PARAMS_FILE

    known = contestants(dim, PARAMS_FILE)
    if unknown := sorted(set(names) - set(known)):
        raise UserError(f"no part {', '.join(unknown)}: expected some of {', '.join(known)}")
    held = contest.Contest.of(source, samples, seconds, repeats)
    settings = (
        contest.code(), Path(__file__).read_bytes(), held.train.digest, held.test.digest, dim,
        seconds, samples, PARAMS_FILE.read_bytes(),
    )  # fmt: skip
    work = work / hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = held.rows(
            [(part, known[part], (_EVALUATIONS,)) for part in names or known],
            lambda part, seed: work / f"{part.replace(' ', '-')}-{seed}",
        )
    click.echo(f"{dim}, {seconds:g} CPU seconds of training each\n")
    click.echo(table_definitions.markdown(table_definitions.ABLATION, rows))
    held.write(name or f"ablation-{dim}", rows)


if __name__ == "__main__":
    main()
