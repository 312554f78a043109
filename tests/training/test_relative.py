"""A cohort in its template's frame: made once, by whoever comes first, and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from models.frame import Frame
from training.framing import Framed

from contracts.maps import MAPS
from models import representation
from tests.models.tiny import SPACE, tiny_volumes

SUBJECTS = 8


def test_two_who_ask_at_once_get_the_same_and_it_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes, masks, people = tiny_volumes(SUBJECTS)
    encoded = representation.encode(volumes, masks, MAPS)
    made, fit = [], Frame.fit

    def counted(*given: object, **named: object) -> object:
        made.append(1)
        return fit(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Frame, "fit", counted)

    def ask(_: int) -> Framed:
        return Framed.of(encoded, people, SPACE, tmp_path, "digest")

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(ask, range(2))
    assert len(made) == 1
    np.testing.assert_array_equal(one.standard, other.standard)
    np.testing.assert_array_equal(one.frame.image, other.frame.image)
    assert not list(tmp_path.rglob("fit"))
    # What is kept is what the frame that is kept finds.
    np.testing.assert_array_equal(one.frame.standard(encoded, people), one.standard)
