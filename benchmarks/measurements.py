"""All measurements, in one list: what `make bench` runs and what tables of the docs come from."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from contracts.paths import WORK


@dataclass(frozen=True, slots=True)
class Measurement:
    """A command that writes `results/<name>.json`.

    Parameters
    ----------
    module : of `benchmarks`, with a command line.
    arguments : of that command line.
    minutes : about how long it takes on two cores.
    before : what has to be run once before it.
    in_bench : whether `make bench` runs it.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    minutes: int = 1
    before: str = ""
    in_bench: bool = True

    @property
    def command(self) -> str:
        """What one types in the project's root."""
        return shlex.join(["python", "-m", f"benchmarks.{self.module}", *self.arguments])


def _contest(name: str, arguments: str, minutes: int) -> Measurement:
    """A contest of generators (`benchmarks.generators`), in a file of its own."""
    named = ("--name", name, *arguments.split())
    return Measurement(name, "generators", named, minutes, before="make demo")


def _ablation(name: str, arguments: str, minutes: int) -> Measurement:
    """An ablation (`benchmarks.ablation`), in a file of its own."""
    named = ("--name", name, *arguments.split())
    return Measurement(name, "ablation", named, minutes, before="make demo")


# Where the cohort of mosaics is built.
_MOSAICS = WORK / "mosaics"

_MEASUREMENTS = (
    Measurement("judge", "judge", minutes=6),
    Measurement("neighbours", "neighbours", minutes=3),
    Measurement("costs", "costs", minutes=10, before="make demo"),
    Measurement("memory", "memory", minutes=12),
    Measurement("scaling", "scaling", minutes=25),
    Measurement("registration", "registration", minutes=15),
    Measurement("paper", "paper", before="python -m benchmarks.scaling"),
    Measurement("search", "search", minutes=150, before="make demo"),
    Measurement("scheduling", "scheduling", minutes=12),
    _ablation("ablation-untrained", "--seconds 0 --samples 36", 25),
    _ablation("ablation-trained", "--seconds 200 --samples 36 whole", 6),
    *(Measurement(f"peft-{dim}", "peft", ("--dim", dim), 60, "make demo") for dim in ("2d", "3d")),
    _contest("generators", "", 70),
    _contest("generators-repeats", "ours-2d ours-3d gaussian --repeats 3", 45),
    _contest(
        "generators-new-people",
        "gaussian ours-3d ours-2d --newcomers 240 --samples 64 --evaluations 16 --evaluations 4",
        35,
    ),
    _contest(
        "generators-ddpm",
        "gaussian ours-3d-ancestral ours-3d-ddpm --newcomers 240 --samples 20 "
        "--evaluations 16 --evaluations 8",
        70,
    ),
    _contest("generators-guidance", "gaussian ours-3d-guided --samples 36 --evaluations 8", 15),
    _contest(
        "generators-hour",
        "gaussian ours-3d --seconds 3600 --newcomers 240 --samples 64 --evaluations 16",
        70,
    ),
    Measurement(
        "generators-mosaics",
        "generators",
        (
            *("--name", "generators-mosaics", "gaussian", "ours-3d", "--repeats", "3"),
            # Of which the template of 208 people takes about 300.
            *("--seconds", "900"),
            *("--evaluations", "4", "--derivatives", str(_MOSAICS / "derivatives")),
            *("--split", str(_MOSAICS / "split.json")),
        ),
        minutes=60,
        before=f"python -m benchmarks.mosaics MAPS {_MOSAICS}",
        in_bench=False,
    ),
    Measurement("gpu", "gpu", minutes=10, before="a machine with an NVIDIA GPU", in_bench=False),
    Measurement("demo", "demo", before="make demo", in_bench=False),
)

MEASUREMENTS = {m.name: m for m in _MEASUREMENTS}
