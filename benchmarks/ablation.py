"""What each part of our generators is worth: `python -m benchmarks.ablation`.

Each part is left out in turn; the rest is fitted anew, trained for the same CPU seconds and scored
as in `benchmarks.contest`. With `--seconds 0` the networks stay untrained, which shows what each
part of the prior is worth by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import contest
from contracts.console import command
from contracts.errors import UserError
from contracts.paths import WORK

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant, Modify
    from contracts.condition import Condition
    from models.config import Dim
    from models.generator import Generator
    from models.prior.prior import Prior
    from training.relative import RelativeSubjects

WHOLE = "whole"
_EVALUATIONS = 8


def contestants(dim: Dim, params: Path) -> dict[str, Contestant]:
    """The whole generator, and the generator without each part, by name."""
    from benchmarks.contestants import Contestant, ours

    modified: dict[str, Modify] = {
        "without template": _without_template,
        "without directions": _without_directions,
        "without modes": _without_modes,
        "without spectrum": _without_spectrum,
        "without quantiles": _without_quantiles,
        "without regression": _without_regression,
    }
    whole = {WHOLE: Contestant(ours(dim, params))}
    return whole | {k: Contestant(ours(dim, params, modify=v)) for k, v in modified.items()}


def _without_template(
    generator: Generator, seen: RelativeSubjects, conditions: Sequence[Condition]
) -> Generator:
    """No template and no displacements: values are modelled per voxel of the cohort's grid."""
    from models.generator import Generator
    from models.prior.prior import Prior

    # Without displacements there are fewer channels, so that the network is another one.
    return Generator(generator.config, Prior.fit(seen.encoded, seen.possible_brain, conditions))


def _without_directions(
    generator: Generator, seen: RelativeSubjects, conditions: Sequence[Condition]
) -> Generator:
    """Only modes that are estimated from the subjects and hold in other subjects."""
    prior = generator.prior
    return _with_prior(generator, _refitted(prior, seen, conditions, with_directions=False))


def _without_modes(
    generator: Generator, seen: RelativeSubjects, conditions: Sequence[Condition]
) -> Generator:
    """Only the stationary part of the covariance, which then has to explain all residuals."""
    import numpy as np

    from models.prior.covariance import stationary_power

    prior = generator.prior
    none = np.zeros((0, prior.scale.size), dtype=np.float32)
    power = stationary_power(
        prior.residual_of_relative(seen.relative, conditions), prior.mask, prior.importance(), none
    ).astype(np.float32)
    bare = replace(
        prior.covariance,
        power=power,
        modes=prior.covariance.modes[:0],
        variance=prior.covariance.variance[:0],
    )
    return _with_prior(generator, replace(prior, covariance=bare))


def _without_spectrum(
    generator: Generator, seen: RelativeSubjects, conditions: Sequence[Condition]
) -> Generator:
    """What the modes leave over is white noise, independent from voxel to voxel."""
    import numpy as np

    prior = generator.prior
    power = prior.covariance.power
    white = np.broadcast_to(power.mean(axis=(1, 2, 3), keepdims=True), power.shape)
    covariance = replace(prior.covariance, power=np.ascontiguousarray(white))
    return _with_prior(generator, replace(prior, covariance=covariance))


def _without_quantiles(
    generator: Generator, seen: RelativeSubjects, conditions: Sequence[Condition]
) -> Generator:
    """Every voxel's values are normally distributed."""
    import numpy as np

    prior = generator.prior
    straight = np.linspace(-2, 2, len(prior.knots), dtype=np.float32)[:, None, None, None, None]
    knots = np.ascontiguousarray(np.broadcast_to(straight, prior.knots.shape))
    return _with_prior(generator, _refitted(replace(prior, knots=knots), seen, conditions))


def _without_regression(
    generator: Generator, seen: RelativeSubjects, conditions: Sequence[Condition]
) -> Generator:
    """One mean for all ages and both sexes; only the network knows the condition."""
    import numpy as np

    from cohort.regression import design
    from contracts.condition import Condition
    from models.prior.prior import Prior

    same = [Condition(50.0, "F")] * len(conditions)
    whole = generator.prior
    prior = Prior.fit(seen.relative, whole.mask, same, transform=seen.transform)
    coefficients = np.zeros_like(prior.coefficients)
    coefficients[0] = np.tensordot(design(same[:1])[0], prior.coefficients, axes=1)
    return _with_prior(generator, replace(prior, coefficients=coefficients))


def _refitted(
    prior: Prior,
    seen: RelativeSubjects,
    conditions: Sequence[Condition],
    with_directions: bool = True,
) -> Prior:
    from models.prior.covariance import Covariance
    from models.prior.directions import directions

    given = directions(seen.transform) / prior.scale
    given = given if with_directions else given[:0]
    fields = prior.residual_of_relative(seen.relative, conditions)
    return replace(prior, covariance=Covariance.fit(fields, prior.mask, prior.importance(), given))


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
