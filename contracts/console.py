"""How commands talk: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click

from contracts.errors import UserError

T = TypeVar("T")
_LINE_EVERY_S = 10.0


class Command(click.Command):
    """A click command that tells a `UserError` in one line instead of a traceback.

    ``DTI_DEBUG=1`` shows the traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
        try:
            return super().invoke(ctx)
        except UserError as error:
            if os.environ.get("DTI_DEBUG"):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


def command(**settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` for a stage or tool of ours."""
    return click.command(cls=Command, **settings)


def say(text: str) -> None:
    """A line of progress."""
    click.echo(text, err=True)


def progress(items: Iterable[T], total: int, what: str, done: int = 0) -> Iterator[T]:
    """Pass `items` on and show how far we are: a bar on a terminal, plain lines elsewhere.

    Parameters
    ----------
    total : how many items there are in all, those done before included.
    done : how many were done before, e.g. ahead of a resumed training.
    """
    if sys.stderr.isatty():
        yield from _bar(items, total, what, done)
    else:
        yield from _lines(items, total, what, done)


def _bar(items: Iterable[T], total: int, what: str, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)


def _lines(items: Iterable[T], total: int, what: str, done: int) -> Iterator[T]:
    start = last = time.monotonic()
    count = done
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S or count == total:
            last = now
            rate = (count - done) / max(now - start, 1e-9)
            left = (total - count) / rate
            say(f"{what} {count}/{total} {100 * count // total}% {rate:.2f}/s eta {left:.0f}s")
