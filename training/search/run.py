"""The whole of a search: open the study, run what waits, look twice at the best, write the end."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import click

from contracts import paths
from contracts.console import say
from contracts.errors import UserError
from services.compute.cluster import VARIABLE, cluster
from services.tracking import page as tracking_page
from services.tracking import store
from services.tracking.lineage import lineage
from training.search import analysis, finalists, page, prepare
from training.search import choice as choosing
from training.search.choice import Choice
from training.search.database import url_of
from training.search.driver import Driver, interruptible
from training.search.ledger import Ledger, keep_picture
from training.search.records import OVER, Record, State
from training.search.schedule import run_trials, say_progress
from training.search.settings import TuneSettings
from training.search.study import Study
from training.search.trial import (
    FAILURE,
    HELD_OUT_LOSS,
    PICTURES,
    RESULT,
    STEP,
    Inner,
    Shared,
    fit_adapter,
)

FOLDER = paths.REPORTS / "search"
# A random study is there to be compared with: it does not replace what is adopted.
REPORT, PAGE = "study{}.json", "study{}.html"


def search(settings: TuneSettings, inner: Inner = fit_adapter) -> Choice:
    """Runs a study, or goes on with it, and writes its end to `data/reports/search`.

    Parameters
    ----------
    inner : the inner loop.

    Raises
    ------
    UserError : if data or base are missing, the cluster or the storage cannot be reached, or the
        search was stopped half-way.
    """
    if os.environ.get(VARIABLE, "").startswith("ray://"):
        raise UserError(
            f"a search needs the address of the cluster's head, host:port, in {VARIABLE}; found "
            "one of Ray's client, ray://"
        )
    study, shared = prepare.prepared(settings)
    tags = lineage((paths.MODELS / settings.dim / "base", paths.DERIVATIVES, paths.SPLIT))
    ledger = Ledger(study, store.tracking_uri(), tags | {"dim": settings.dim}, _params(settings))
    study.fill()
    _say_where(study)
    cpus = settings.concurrent * settings.cpus
    with ledger.writing(), cluster(cpus=cpus, stored_bytes=shared.size_bytes) as joined:
        joined.require(settings.cpus, settings.gpus)
        _run(study, shared, settings, ledger, inner)
        slots = study.slots()
        _require_some(slots, study)
        hand_picked = len(study.space.hand_picked())
        again = choosing.finalists(slots, settings, hand_picked)
        scores = finalists.rescored(study, again, shared, settings.finalists.seeds)
    choice = choosing.choose(slots, settings, scores, hand_picked)
    conclude(study, choice, ledger)
    return choice


def _run(
    study: Study, shared: Shared, settings: TuneSettings, ledger: Ledger, inner: Inner
) -> None:
    """Runs what waits; however it ends, the study knows it."""
    driver = Driver.new()

    def changed(number: int, result: dict[str, Any]) -> None:
        if RESULT in result:
            keep_picture(study.folder / "trials" / str(number), result[PICTURES])
        elif STEP in result:
            ledger.progress(number, int(result[STEP]), float(result[HELD_OUT_LOSS]))
        elif FAILURE not in result:
            say(f"trial {number} is lost: its slot waits again")
        say_progress(study, number, result)

    try:
        with interruptible(), driver.alive(study.folder, study.beat):
            run_trials(study, driver, shared, settings, changed, inner)
    except KeyboardInterrupt as stop:
        study.release(driver.id, "the driver was stopped")
        raise UserError(
            f"stopped with {_over(study.slots())} of {settings.trials} trials over; they are "
            "kept: run the same command to go on"
        ) from stop
    except BaseException:
        study.release(driver.id, "the driver was stopped by an error")
        raise


def _say_where(study: Study) -> None:
    slots = study.slots()
    say(
        f"study {study.name}: {_over(slots)} of {len(slots)} trials are over; files in "
        f"{study.folder}"
    )


def _over(slots: Sequence[Record]) -> int:
    return sum(one.state in OVER for one in slots)


def _require_some(slots: Sequence[Record], study: Study) -> None:
    if any(one.state is State.DONE for one in slots):
        return
    reasons = {one.failure for one in slots if one.failure}
    raise UserError(
        f"no trial of {study.name} has a result: {'; '.join(sorted(reasons)) or 'none ran'}. Mend "
        "this and run the same command: lost trials are repeated, failed ones are results"
    )


def _params(settings: TuneSettings) -> dict[str, Any]:
    plain = asdict(settings)
    space = plain.pop("space")
    space["methods"] = " ".join(space["methods"])
    return {**plain, **{f"space.{key}": value for key, value in space.items()}}


def conclude(study: Study, choice: Choice, ledger: Ledger) -> None:
    """Writes report, page and the study's run, and prints the table."""
    settings, slots = study.settings, study.slots()
    said = choosing.sentences(choice, slots, settings)
    random = random_slots(study)
    worst = analysis.reference(slots, settings, len(study.space.hand_picked()))
    curve = analysis.growth(slots, settings, worst) if worst else []
    content = {
        "study": study.name,
        "dim": settings.dim,
        "chosen": choice.chosen and choice.chosen.number,
        "said": said,
        "rule": choosing.RULE,
        "hypervolume": [volume for _, volume in curve],
        "importance": analysis.importances(study),
        "trials": [_plain(study, one, choice) for one in slots],
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    suffix = "-random" if settings.sampler == "random" else ""
    report, shown = FOLDER / REPORT.format(suffix), FOLDER / PAGE.format(suffix)
    report.write_text(json.dumps(content, indent=2) + "\n")
    page.write(shown, study, choice, random)
    metrics = {}
    if choice.chosen is not None:
        metrics = {"chosen_distance": choice.scores[choice.chosen.number].interval.mean}
    note = "# " + "\n\n".join(said)
    ledger.conclude(metrics, curve, note, [report, shown])
    click.echo(page.table(slots, choice, settings))
    click.echo("\n" + "\n".join(said))
    say(f"page: {shown}")
    for line in tracking_page.hints():
        say(line)


def random_slots(study: Study) -> list[Record] | None:
    """Returns the slots of the random study of the same settings, or None if there is none."""
    name = study.name.replace(f"-{study.settings.sampler}-", "-random-")
    folder = study.folder.with_name(name)
    if study.settings.sampler == "random" or not folder.exists():
        return None
    settings = replace(study.settings, sampler="random")
    return Study(url_of(folder), name, folder, settings, study.space).slots() or None


def _plain(study: Study, one: Record, choice: Choice) -> dict[str, Any]:
    again = choice.scores.get(one.number)
    return {
        "number": one.number,
        "slot": one.slot,
        "state": str(one.state),
        "config": one.config,
        "adapt": asdict(study.space.settings(one.config)) if one.config else None,
        "result": one.result,
        "failure": one.failure,
        "again": again and asdict(again.interval),
    }


def report() -> dict[str, Any]:
    """Returns the report of the last search.

    Raises
    ------
    UserError : if there is none.
    """
    path = FOLDER / REPORT.format("")
    if not path.exists():
        raise UserError(f"no {path}; search first: make tune")
    found: dict[str, Any] = json.loads(path.read_text())
    return found
