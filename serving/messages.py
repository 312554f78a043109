"""What is asked of the sampling room and what it gives: a request and a sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.condition import AGE_LIMITS, Condition
from contracts.errors import UserError
from models.config import Dim

DIMS: tuple[Dim, ...] = ("2d", "3d")

STEPS = 16
STEPS_LIMIT = 200
COUNT_LIMIT = 32
# Browsers and spreadsheets hold whole numbers exactly up to 2^53; 2^31 - 1 is safe everywhere.
SEED_LIMIT = 2**31 - 1
STRENGTH_LIMIT = 3


class SampleRequest(BaseModel):
    """Which volumes to make.

    `count` volumes are made with the seeds `seed`, `seed` + 1, ...; each is the same as if it
    had been asked for alone.
    """

    model_config = ConfigDict(title="request", frozen=True, strict=True, extra="forbid")

    dim: Dim = Field(default="3d", description="Generator: by slices or by volume.")
    age: float = Field(ge=AGE_LIMITS[0], le=AGE_LIMITS[1], description="Age in years.")
    sex: Literal["F", "M"] = Field(description="Sex, F or M.")
    site: str | None = Field(
        default=None, description="Of generators that were told sites; none: their average."
    )
    adapter: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Alias or version number of a registered adapter; none: as the champion is.",
    )
    strength: float = Field(
        default=1.0,
        ge=0,
        le=STRENGTH_LIMIT,
        description="Of the adapter: 0 is the base, 1 as trained, others lie between or beyond.",
    )
    seed: int = Field(default=0, ge=0, le=SEED_LIMIT, description="Fixes the volume.")
    steps: int = Field(default=STEPS, ge=1, le=STEPS_LIMIT, description="Steps of the sampler.")
    map: Literal["fa", "md", "ad", "rd"] = Field(
        default="fa",
        description="FA (unitless), MD, AD or RD (mm^2/s); AD and RD of generators that have them.",
    )
    count: int = Field(default=1, ge=1, le=COUNT_LIMIT, description="Volumes; above 1 gives 4D.")

    @property
    def condition(self) -> Condition:
        """Age, sex and site."""
        return Condition(age=self.age, sex=self.sex, site=self.site)

    @property
    def seeds(self) -> list[int]:
        """The seed of each volume."""
        return list(range(self.seed, self.seed + self.count))

    @property
    def label(self) -> str:
        """BIDS subject label that tells what was asked, e.g. ``sub-synth3dage65sexFseed1``."""
        age = f"{self.age:g}".replace(".", "p")
        last = f"to{self.seeds[-1]}" if self.count > 1 else ""
        site = "" if self.site is None else "site" + _plain(self.site)
        adapter = "" if self.adapter is None else "adapter" + _plain(self.adapter)
        strength = f"strength{self.strength:g}".replace(".", "p") if self.strength != 1 else ""
        chosen = adapter + _plain(strength)
        return f"sub-synth{self.dim}{chosen}age{age}sex{self.sex}{site}seed{self.seed}{last}"


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name))


def sample_request(values: dict[str, Any]) -> SampleRequest:
    """A checked request.

    Raises
    ------
    UserError : if a value is missing, unknown or out of range; names each of them.
    """
    try:
        return SampleRequest.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error.errors())) from error


def explain(details: Any) -> str:
    """Pydantic's error details in one line, e.g. ``age: Input should be ...``."""
    return "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in details)


@dataclass(frozen=True, slots=True)
class Sample:
    """Volumes that were made.

    Parameters
    ----------
    volume : bytes of the `.nii.gz` file.
    recipe : how it was made; also in the file's header.
    name : a file name that tells what was asked.
    """

    volume: bytes
    recipe: dict[str, Any]
    name: str

    @property
    def warnings(self) -> list[str]:
        """What to know before using the volume, e.g. an age outside the training coverage."""
        return list(self.recipe["Warnings"])

    def save(self, path: Path | str | None = None) -> Path:
        """Write the file, by default as `name` in the current folder; returns its path."""
        target = Path(path) if path is not None else Path(self.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        partial.write_bytes(self.volume)
        partial.replace(target)
        return target
