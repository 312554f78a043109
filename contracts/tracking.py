"""What a stage records of its work: the protocol of a run, and the backend that keeps it.

A stage imports this module alone. What is recorded does not change what is made, so the code that
records is looked up by name when the stage runs, and no stage depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPERIMENT = "synthetic-dti-maps"
_RUNS = "services.tracking.run"
_LINEAGE = "services.tracking.lineage"

Status = Literal["FINISHED", "FAILED", "KILLED"]
Value = str | int | float | bool | None


class Run(Protocol):
    """The record of one piece of work; as a context manager it ends as the work does.

    Parameters
    ----------
    id : of the run.
    uri : of the store that keeps it.
    """

    id: str
    uri: str

    def params(self, values: Mapping[str, Value]) -> None:
        """What the run was asked to do; a value that is set cannot change."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers named ``stage/metric``; log a final score once, without step."""

    def tags(self, values: Mapping[str, Value]) -> None:
        """What runs are filtered by; a tag may change."""

    def note(self, markdown: str) -> None:
        """The description that is shown above the run."""

    def image(self, pixels: NDArray[Any], key: str, step: int = 0) -> None:
        """A picture (H, W) or (H, W, 3): uint8, or floats of which [0, 1] is shown."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file, or all files of a folder."""

    def text(self, text: str, name: str) -> None:
        """A text kept as the artifact `name`."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the run."""

    def __enter__(self) -> Self:
        """The run itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the run: finished, or failed if there was an error, or killed."""


def start_run(
    name: str, params: Mapping[str, Value], tags: Mapping[str, Value], key: str | None = None
) -> Run:
    """Open a run of the project's experiment.

    Parameters
    ----------
    name : the idea of the run, e.g. ``lora-3d``; runs are told apart by it.
    params : flat; names with dots or slashes.
    tags : `stage`, `dim` and the like, and the `lineage`.
    key : a name of this piece of work. If there is a run of this key that did not finish, that
        one is continued.

    Raises
    ------
    UserError : if the store does not answer or refuses.
    """
    run: Run = import_module(_RUNS).start_run(EXPERIMENT, name, params, tags, key=key)
    return run


def resume_run(run_id: str) -> Run:
    """A handle on a run that exists; its status and end time stay as they are.

    Raises
    ------
    UserError : if the store does not answer or has no such run.
    """
    run: Run = import_module(_RUNS).resume_run(run_id)
    return run


def lineage(inputs: Iterable[Path]) -> dict[str, str]:
    """The tags that lead from a run back to its code, its parameters and what it read.

    Parameters
    ----------
    inputs : the files and folders that the run reads, relative to the working directory.
    """
    tags: dict[str, str] = import_module(_LINEAGE).lineage(inputs)
    return tags
