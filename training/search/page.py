"""The end of a study as one HTML page that needs no other file, and as a table for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.adapters.method import methods
from training.search import analysis
from training.search import choice as choosing
from training.search.choice import Choice
from training.search.database import shown
from training.search.records import Record, State
from training.search.settings import TuneSettings
from training.search.space import name_of
from training.search.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEMPLATE = "page_template.html"
_LABELS = {
    "regional_distance": "regional distance",
    "copy_share": "copy share",
    "trainable": "trained parameters",
    "seconds": "seconds of training",
}


def table(slots: Sequence[Record], choice: Choice, settings: TuneSettings) -> str:
    """Returns the trials as text, the nearest first, those without a result last."""
    marks = {r.number: "front" for r in choosing.on_front(slots, settings)}
    marks |= {r.number: "by hand" for r in choice.hand_picked}
    over = [r for r in choosing.done(slots) if not choosing.allowed(r, settings)]
    marks |= {r.number: "beyond a limit" for r in over}
    if choice.chosen is not None:
        marks[choice.chosen.number] = "chosen"
    rows = [("", "trial", "settings", "distance", "again", "copies", "trained", "s")]
    for one in choosing.done(slots):
        again = choice.scores.get(one.number)
        rows.append(
            (
                marks.get(one.number, ""),
                str(one.number),
                name_of(one.config),
                f"{one.result['regional_distance']:.4f}",
                f"{again.interval.mean:.4f}" if again else "",
                f"{one.result['copy_share']:.2f}",
                f"{one.result['trainable']:,}",
                f"{one.result['seconds']:.0f}",
            )
        )
    for one in slots:
        if one.state is not State.DONE:
            name = name_of(one.config) if one.config else ""
            rows.append(("", str(one.number), name, str(one.state), "", "", "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{c:<{w}}" for c, w in zip(row[:3], widths[:3], strict=True)]
        cells += [f"{c:>{w}}" for c, w in zip(row[3:], widths[3:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines += [f"trial {r.number}: {r.failure}" for r in slots if r.failure]
    return "\n".join(lines)


def write(path: Path, study: Study, choice: Choice, random: Sequence[Record] | None) -> None:
    """Writes the page.

    Parameters
    ----------
    random : slots of a study of the same settings whose sampler is random.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    settings, slots = study.settings, study.slots()
    names = settings.objectives
    shares = analysis.importances(study)
    said = choosing.sentences(choice, slots, settings)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, autoescape=True
    )
    worst = analysis.reference(slots, settings, len(study.space.hand_picked()))
    pictures = {"growth": _growth(slots, random, settings, worst)}
    if len(names) > 1:
        pictures["front"] = _front(slots, choice, settings)
    pictures["scores"] = _scores(choice)
    if shares:
        pictures["importance"] = _importance(shares)
    blocks = _blocks(study, choice, slots)
    text = environment.get_template(TEMPLATE).render(
        name=study.name,
        storage=shown(study.url),
        settings=settings,
        rule=choosing.RULE,
        said=said,
        pictures=pictures,
        blocks=blocks,
        rows=_rows(slots, choice, settings),
        labels=_LABELS,
        random=random is not None,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _rows(slots: Sequence[Record], choice: Choice, settings: TuneSettings) -> list[dict[str, Any]]:
    fronts = {r.number for r in choosing.on_front(slots, settings)}
    rows = []
    for one in (*choosing.done(slots), *(r for r in slots if r.state is not State.DONE)):
        again = choice.scores.get(one.number)
        rows.append(
            {
                "record": one,
                "name": name_of(one.config) if one.config else "",
                "again": again.interval if again else None,
                "chosen": choice.chosen is not None and one.number == choice.chosen.number,
                "by_hand": any(r.number == one.number for r in choice.hand_picked),
                "front": one.number in fronts,
                "allowed": one.state is State.DONE and choosing.allowed(one, settings),
            }
        )
    return rows


def _blocks(
    study: Study, choice: Choice, slots: Sequence[Record]
) -> list[tuple[str, bool, float | None]]:
    """Returns each block of the network: its name, whether the chosen trial adapts it, and the mean
    regional distance of trials that adapt it less that of those that do not."""
    from fnmatch import fnmatchcase

    def adapts(one: Record, block: str) -> bool:
        chosen = study.space.settings(one.config)
        trains = methods()[chosen.method].trains_something
        return trains and any(fnmatchcase(block, pattern) for pattern in chosen.blocks)

    good, found = choosing.done(slots), []
    for block in study.space.blocks:
        chosen = choice.chosen is not None and adapts(choice.chosen, block)
        sides: dict[bool, list[float]] = {True: [], False: []}
        for one in good:
            sides[adapts(one, block)].append(float(one.result["regional_distance"]))
        both = all(sides.values())
        gap = float(np.mean(sides[True]) - np.mean(sides[False])) if both else None
        found.append((block, chosen, gap))
    order = {block: i for i, block in enumerate(sorted(study.space.blocks, key=_depth))}
    return sorted(found, key=lambda row: order[row[0]])


def _depth(block: str) -> tuple[int, str]:
    """Returns where a block stands on the way through the network."""
    first = block.partition(".")[0]
    order = ("conv_in", "time_embed", "condition_embed", "down", "middle", "up", "out")
    place = order.index(first) if first in order else 0
    return place, block


def _svg(draw: Any, width: float, height: float) -> str:
    """Returns a figure as SVG text that can stand in a page."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)
    text = re.sub(r"<metadata>.*?</metadata>", "", content.getvalue(), flags=re.DOTALL)
    return text[text.index("<svg") :]


def _growth(
    slots: Sequence[Record],
    random: Sequence[Record] | None,
    settings: TuneSettings,
    worst: Sequence[float],
) -> str:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        curves: dict[str, Sequence[Record]] = {settings.sampler: slots}
        if random is not None:
            curves[f"random, {len(random)} trials"] = random
        for (label, records), dashes in zip(curves.items(), ("-", "--"), strict=False):
            values = [v for _, v in analysis.growth(records, settings, worst)] if worst else []
            axes.step(range(1, len(values) + 1), values, dashes, where="post", label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trials that ended")
        axes.set_ylabel("hypervolume" if len(settings.objectives) > 1 else "gain (share)")
        axes.legend(frameon=False)

    return _svg(draw, 6.0, 3.0)


def _front(slots: Sequence[Record], choice: Choice, settings: TuneSettings) -> str:
    x, y = settings.objectives[1], settings.objectives[0]
    front = {r.number for r in choosing.on_front(slots, settings)}

    def draw(axes: Axes) -> None:
        good = choosing.done(slots)
        for one in good:
            inside = choosing.allowed(one, settings)
            marker = "o" if inside else "x"
            face = "C0" if one.number in front else "none"
            where = float(one.result[x]), float(one.result[y])
            axes.plot(*where, marker, color="C0", markerfacecolor=face)
            if one.number in front:
                axes.annotate(
                    str(one.number), where, textcoords="offset points", xytext=(5, 4), fontsize=8
                )
        if choice.chosen is not None:
            where = float(choice.chosen.result[x]), float(choice.chosen.result[y])
            axes.plot(*where, "o", color="C3", markersize=11, markerfacecolor="none")
        axes.set_xscale("symlog" if x == "trainable" else "linear")
        axes.set_xlabel(_LABELS[x])
        axes.set_ylabel(_LABELS[y])

    return _svg(draw, 6.0, 4.0)


def _scores(choice: Choice) -> str:
    by_hand = {r.number for r in choice.hand_picked}
    order = sorted(choice.scores, key=lambda n: choice.scores[n].interval.mean)

    def draw(axes: Axes) -> None:
        for i, number in enumerate(order):
            value = choice.scores[number].interval
            chosen = choice.chosen is not None and number == choice.chosen.number
            color = "C3" if chosen else "C2" if number in by_hand else "C0"
            axes.errorbar(
                value.mean,
                -i,
                xerr=[[value.mean - value.low], [value.high - value.mean]],
                fmt="o",
                color=color,
            )
        axes.set_yticks([-i for i in range(len(order))], [f"trial {n}" for n in order])
        axes.set_xlabel("regional distance, new seeds, 95 % interval")

    return _svg(draw, 6.0, 0.6 + 0.3 * max(len(order), 2))


def _importance(shares: Mapping[str, float]) -> str:
    def draw(axes: Axes) -> None:
        names = list(shares)[::-1]
        axes.barh(names, [shares[name] for name in names], color="C0")
        axes.set_xlabel("importance (PED-ANOVA)")

    return _svg(draw, 6.0, 0.6 + 0.25 * max(len(shares), 2))
