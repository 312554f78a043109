"""The gate: whether an adapted generator takes the place of its base as champion."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contracts.errors import UserError
from contracts.paths import REPORTS
from models.config import Dim

# A base is trained on the base group; an adapted generator is a base adapted to the target group.
Kind = Literal["base", "adapted"]
KINDS: tuple[Kind, ...] = ("base", "adapted")


@dataclass(frozen=True, slots=True)
class Gate:
    """The comparison that lets an adapted generator become champion.

    Parameters
    ----------
    base, adapted : regional distance to the target group's validation subjects; lower is better.
    """

    base: float
    adapted: float

    @property
    def passed(self) -> bool:
        """Whether both are numbers and the adapted one is lower."""
        return math.isfinite(self.base) and self.adapted < self.base

    @property
    def champion(self) -> Kind:
        """The kind of generator that is served."""
        return "adapted" if self.passed else "base"

    @property
    def reason(self) -> str:
        """The comparison in words."""
        relation = "below" if self.passed else "not below"
        return (
            f"adapted regional distance {self.adapted:.4g} is {relation} the base's {self.base:.4g}"
        )

    def distance(self, kind: Kind) -> float:
        """The regional distance of one of the two."""
        return self.adapted if kind == "adapted" else self.base

    def verdict(self, kind: Kind) -> Literal["passed", "failed"]:
        """The gate's answer for one of the two; the base, which is compared with, always passes."""
        return "passed" if kind == "base" or self.passed else "failed"


def read_gate(dim: Dim) -> Gate:
    """Read the two distances from the report of stage `adapt`.

    Raises
    ------
    UserError : if the report is missing or lacks a number.
    """
    path = REPORTS / f"adapt-{dim}.json"
    report = read_object(path, f"dvc repro adapt@{dim}")
    try:
        return Gate(
            base=float(report["val_regional_distance_base"]),
            adapted=float(report["val_regional_distance_adapted"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected the numbers val_regional_distance_base and "
            f"val_regional_distance_adapted ({error!r}); run `dvc repro -f adapt@{dim}`"
        ) from error


def read_object(path: Path, mend: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    mend : the command that makes the file.

    Raises
    ------
    UserError : if the file is missing or holds something else.
    """
    try:
        content: Any = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"no {path}; make it with `{mend}`") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); make it again with `{mend}`") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object; make it again with `{mend}`")
    return content
