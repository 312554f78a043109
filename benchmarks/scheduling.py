"""How busy a search keeps its slots, and its driver's memory: `python -m benchmarks.scheduling`.

Trials sleep instead of training, so that all else is the search's own: asking the sampler, writing
the study, starting trials on Ray. A slot is a CPU of the local cluster, as many as are asked for,
whatever the machine has. Memory is that of the driver while 500 trials that sleep briefly go by.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import result
from contracts.console import command, say

_BRIEF_S = 0.05
_MEMORY_SLOTS = 4


def sleep(config: dict[str, Any], shared: Any, folder: Path, told: Any) -> Any:
    """The inner loop: sleeps as many seconds as `shared` says."""
    from training.search.trial import Result

    time.sleep(float(shared))
    return Result(0.5, 0.0, 1, 0.0, 0, float(shared), 0.0)


def run(slots: int, trials: int, seconds: float, after: Any = None) -> float:
    """Runs sleeping trials, and returns which share of the slots' time they slept.

    The time is from the start of the first trial to the end of the last one.

    Parameters
    ----------
    after : called with the number of each trial that is over.
    """
    from services.compute.cluster import cluster
    from training.search.database import url_of
    from training.search.driver import Driver
    from training.search.schedule import run_trials
    from training.search.settings import SpaceSettings, TuneSettings
    from training.search.space import Space
    from training.search.study import Study
    from training.settings import AdaptSettings

    given = SpaceSettings(methods={"lora": {}, "svdiff": {}, "full": {}}, steps=(10, 20))
    settings = TuneSettings("3d", trials, slots, 1, 0.0, 0, given)
    with tempfile.TemporaryDirectory() as name, cluster(cpus=slots):
        space = Space(given, AdaptSettings(settings={"rank": 4}, steps=20), ("out",))
        study = Study(url_of(Path(name)), "sleep", Path(name), settings, space)
        study.fill()
        shared: Any = seconds

        def changed(number: int, report: dict[str, Any]) -> None:
            if after is not None:
                after(number)

        run_trials(study, Driver.new(), shared, settings, changed, sleep)
        records = study.slots()
    span = max(one.ended for one in records) - min(one.began for one in records)
    return trials * seconds / (slots * span)


@command()
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Of each trial.")
@click.option("--waves", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--trials", type=click.IntRange(min=10), default=500, show_default=True)
def main(seconds: float, waves: int, trials: int) -> None:
    """Measure 2 and 32 slots, then memory, and write results/scheduling.json."""
    import psutil

    from benchmarks import table_definitions

    rows: list[result.Row] = []
    for slots in (2, 32):
        busy = run(slots, waves * slots, seconds)
        say(f"{slots} slots: {busy:.3f} busy")
        rows.append({"slots": slots, "trials": waves * slots, "seconds": seconds, "busy": busy})
    process, memory = psutil.Process(os.getpid()), []

    def after(number: int) -> None:
        memory.append(process.memory_info().rss / 1e6)

    run(_MEMORY_SLOTS, trials, _BRIEF_S, after)
    for share in (5, 1):
        over = len(memory) // share
        at = memory[min(over, len(memory) - 1)]
        rows.append({"slots": _MEMORY_SLOTS, "trials": over, "seconds": _BRIEF_S, "driver_mb": at})
    found = result.write("scheduling", rows, n={"waves": waves}, seeds=[0])
    click.echo(table_definitions.TABLES["scheduling"].body(found))


if __name__ == "__main__":
    main()
