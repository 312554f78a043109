"""What a search is worth: `python -m benchmarks.search`, after `make demo`.

For each seed a study by the sampler of params.yaml and one at random, of as many trials and with
the same hand-picked ones first. The chosen trial is scored again with new seeds, and compared with
the site's gain alone and with the median of the hand-picked settings, in pairs.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from benchmarks import result
from contracts.console import command, say
from contracts.params import load
from training.search.settings import TuneSettings

if TYPE_CHECKING:
    from training.search.finalists import Interval
    from training.search.settings import TuneSettings as Settings


def row(settings: Settings) -> dict[str, Any]:
    """Returns what came of a study and of a random one."""
    from training.search import analysis, prepare
    from training.search import choice as choosing
    from training.search.run import search
    from training.search.space import name_of

    begun = time.monotonic()
    choice = search(settings)
    minutes = (time.monotonic() - begun) / 60
    study, _ = prepare.prepared(settings)
    slots, hand_picked = study.slots(), len(study.space.hand_picked())
    worst = analysis.reference(slots, settings, hand_picked)
    random_settings = replace(settings, sampler="random")
    search(random_settings)
    random = prepare.prepared(random_settings)[0].slots()
    if choice.chosen is None:
        return {"seed": settings.seed, "chosen": "", "minutes": minutes}
    by_hand = sorted(choice.hand_picked, key=lambda r: choice.scores[r.number].interval.mean)
    adapters = [one for one in by_hand if one.config["mean_shift"]]
    gain = next(one for one in by_hand if not one.config["mean_shift"])
    volumes = [analysis.growth(one, settings, worst)[-1][1] for one in (slots, random)]
    best = [float(choosing.done(one)[0].result["regional_distance"]) for one in (slots, random)]
    return {
        "seed": settings.seed,
        "chosen": name_of(choice.chosen.config),
        "trained": choice.chosen.result["trainable"],
        "score": _plain(choice.scores[choice.chosen.number].interval),
        "less_gain": _plain(choice.against(gain)),
        "less_hand_picked": _plain(choice.against(adapters[len(adapters) // 2])),
        "hypervolume": volumes[0],
        "hypervolume_random": volumes[1],
        "best": best[0],
        "best_random": best[1],
        "minutes": minutes,
    }


def _plain(value: Interval) -> dict[str, float]:
    return result.interval(value.mean, value.low, value.high)


@command()
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--trials", type=click.IntRange(min=4), default=24, show_default=True)
def main(seeds: int, trials: int) -> None:
    """Run studies of several seeds beside random ones, and write results/search.json."""
    from benchmarks import table_definitions

    rows = []
    for seed in range(seeds):
        say(f"seed {seed}")
        rows.append(row(replace(load(TuneSettings, "tune"), seed=seed, trials=trials)))
    found = result.write(
        "search",
        rows,
        n={"trials": trials, "seeds": seeds},
        seeds=list(range(seeds)),
        intervals=result.CONFIDENCE,
    )
    click.echo(table_definitions.TABLES["search"].body(found))


if __name__ == "__main__":
    main()
