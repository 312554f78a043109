"""What the processes of a group are asked to do in tests; they import it by name."""

from __future__ import annotations

import os
from pathlib import Path

from contracts.errors import UserError


def dies_once(folder: Path) -> tuple[int, int]:
    """The sum of all ranks, and how many processes there are."""
    import torch
    from torch import distributed

    first = folder / "first"
    if os.environ["RANK"] == "1" and not first.exists():
        first.touch()
        os._exit(1)
    distributed.init_process_group("gloo")
    total = torch.tensor(distributed.get_rank())
    distributed.all_reduce(total)
    return int(total), distributed.get_world_size()


def complains(_: Path) -> None:
    """The second process has a reason to give up; the first waits for it."""
    from torch import distributed

    if os.environ["RANK"] == "1":
        raise UserError("lower learning_rate")
    distributed.init_process_group("gloo")
