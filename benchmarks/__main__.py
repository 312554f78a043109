"""Run measurements one after the other: `python -m benchmarks`, which is `make bench`."""

from __future__ import annotations

import subprocess
import sys

import click

from benchmarks import result
from benchmarks.measurements import MEASUREMENTS, Measurement
from contracts.console import command, say
from contracts.errors import UserError


@command()
@click.argument("names", nargs=-1)
@click.option("--list", "listed", is_flag=True, help="Only list the measurements.")
def main(names: tuple[str, ...], listed: bool) -> None:
    """Measure speed and quality, each beside a named baseline, and write results/<name>.json.

    NAMES: some measurements only. One whose file is of the code as it is now is left out, so that
    a run that was stopped goes on. Delete its file to measure it again.
    """
    if unknown := sorted(set(names) - set(MEASUREMENTS)):
        raise UserError(
            f"no measurement {', '.join(unknown)}: expected some of {', '.join(MEASUREMENTS)}"
        )
    chosen = [MEASUREMENTS[name] for name in names]
    chosen = chosen or [m for m in MEASUREMENTS.values() if listed or m.in_bench]
    if listed:
        for measurement in chosen:
            click.echo(_line(measurement))
        return
    for i, measurement in enumerate(chosen):
        found = result.read(measurement.name)
        if found and result.is_of_this_code(found):
            say(f"{measurement.name}: results/{measurement.name}.json is of this code, left as is")
            continue
        minutes = sum(m.minutes for m in chosen[i:])
        say(f"{measurement.command} ({i + 1} of {len(chosen)}; about {minutes} minutes to go)")
        run(measurement)
    say("`make tables` brings the results into the docs")


def run(measurement: Measurement) -> None:
    """Run one in a process of its own.

    Raises
    ------
    UserError : if it fails; what it printed says why.
    """
    arguments = ["-m", f"benchmarks.{measurement.module}", *measurement.arguments]
    done = subprocess.run([sys.executable, *arguments], cwd=result.ROOT, check=False)
    if done.returncode:
        before = f" (it needs: {measurement.before})" if measurement.before else ""
        raise UserError(f"`{measurement.command}` failed, see above{before}; run it again to go on")


def _line(measurement: Measurement) -> str:
    when = f"after {measurement.before}" if measurement.before else ""
    bench = "" if measurement.in_bench else "not in make bench"
    notes = "; ".join(filter(None, [f"{measurement.minutes} min", when, bench]))
    return f"{measurement.name:22} {measurement.command}  ({notes})"


if __name__ == "__main__":
    main()
