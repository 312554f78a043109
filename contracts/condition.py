"""What a sample is asked to be: an age, a sex, a site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from contracts.errors import UserError

Sex = Literal["F", "M"]
AGE_LIMITS = (0.0, 120.0)


@dataclass(frozen=True, slots=True)
class Condition:
    """Age in years and sex of one subject or sample, and where it was scanned.

    Parameters
    ----------
    site : None: no particular one, the average of the sites.
    """

    age: float
    sex: Sex
    site: str | None = None


def condition(age: float, sex: str) -> Condition:
    """A checked condition.

    Raises
    ------
    UserError : if the age is not a possible one or the sex is neither F nor M.
    """
    low, high = AGE_LIMITS
    if not low <= age <= high:
        raise UserError(f"age {age:g} is out of range: expected {low:g} to {high:g} years")
    if sex not in ("F", "M"):
        raise UserError(f"unknown sex '{sex}': expected F or M")
    return Condition(age=float(age), sex=cast(Sex, sex))
