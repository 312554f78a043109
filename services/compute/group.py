"""Processes that train one model together, as actors of a Ray cluster.

Ray Train would do the same, but asks for the dashboard, keeps records of its own, and its
controller's log drowns the training's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from contracts.console import say
from contracts.errors import UserError
from services.compute.cluster import VARIABLE, Cluster, cluster

T = TypeVar("T")
Result = TypeVar("Result")

_RESTARTS = 1  # after a lost node or process; the work goes on from its own checkpoint
_PLACED_WITHIN_S = 120.0
_TOLD = 300  # characters of Ray's reason
_WORLD = "WORLD_SIZE"


def together(work: Callable[[T], Result], task: T, workers: int) -> Result:
    """Call `work(task)` in several processes at once, each with a GPU if the cluster has any.

    torch.distributed finds in their environment how to join them. They run on the Ray cluster that
    `RAY_ADDRESS` names, and without it on this machine. One worker is this process, and needs no
    cluster.

    Parameters
    ----------
    work : a function of a module; every worker sees the files that it reads and writes.
    task : is sent to the workers.

    Returns
    -------
    What the first process returns.

    Raises
    ------
    UserError : if the cluster cannot be joined or is too small, a process is lost twice, or `work`
        raises one.
    """
    if int(os.environ.get(_WORLD, "1")) > 1:
        raise UserError(
            f"a launcher started this command {os.environ[_WORLD]} times; start it once, without "
            "launcher, with --workers"
        )
    if workers == 1:
        return work(task)
    with cluster(log=True) as joined:
        for _ in range(_RESTARTS):
            try:
                return _call(work, task, workers, joined)
            except _Lost as error:
                say(f"{error}; starting all processes again")
        return _call(work, task, workers, joined)


class _Lost(UserError):
    """A process is gone."""


def _call(work: Callable[[T], Result], task: T, workers: int, joined: Cluster) -> Result:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    share = _share(joined, workers)
    # All or none: a part of the processes would wait for the others for ever.
    group = placement_group([{k: v for k, v in share.items() if v}] * workers)
    try:
        ray.get(group.ready(), timeout=_PLACED_WITHIN_S)
        members = [
            ray.remote(_Member)
            .options(
                num_cpus=share["CPU"],
                num_gpus=share["GPU"],
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            )
            .remote(rank, workers)
            for rank in range(workers)
        ]
        address = ray.get(members[0].address.remote())
        result: Result = _first([m.run.remote(work, task, address) for m in members])
        return result
    except GetTimeoutError as error:
        raise UserError(
            f"the cluster has had no room for {workers} workers of {share} for "
            f"{_PLACED_WITHIN_S:.0f} s: wait for what runs there, or ask for fewer"
        ) from error
    except RayActorError as error:
        raise _Lost(f"a training process was lost: {str(error)[:_TOLD]}") from error
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from error
        raise
    finally:
        remove_placement_group(group)  # ends the processes that are left


def _share(joined: Cluster, workers: int) -> dict[str, int]:
    kind, there = ("GPU", joined.gpus) if joined.gpus else ("CPU", joined.cpus)
    if workers > there:
        raise UserError(
            f"{workers} workers need as many {kind}s, the cluster has {there:g}; ask for fewer, or "
            f"join a larger one with {VARIABLE}"
        )
    return {"CPU": max(int(joined.cpus // workers), 1), "GPU": int(kind == "GPU")}


def _first(calls: Sequence[Any]) -> Any:
    """The first one's result when all are over; the first failure at once."""
    import ray

    left = list(calls)
    while left:
        over, left = ray.wait(left)
        ray.get(over)
    return ray.get(calls[0])


class _Member:
    """One of the processes."""

    def __init__(self, rank: int, workers: int) -> None:
        self._rank = rank
        # Ray shows each process its own GPU only: that is the first one there.
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": "0", _WORLD: str(workers)})

    def __repr__(self) -> str:
        return f"process {self._rank}"  # Ray puts it before each line of its output

    def address(self) -> tuple[str, str]:
        """Host and a free port of this process."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), str(probe.getsockname()[1])

    def run(self, work: Callable[[T], Result], task: T, address: tuple[str, str]) -> Result:
        """`work(task)`, with the first process at `address`."""
        import torch

        os.environ.update(MASTER_ADDR=address[0], MASTER_PORT=address[1])
        try:
            return work(task)
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
