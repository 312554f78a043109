"""The Ray cluster that trials run on: one on this machine, or one that is there already.

A cluster with token authentication needs `RAY_AUTH_MODE=token` and the same `RAY_AUTH_TOKEN` in
the environment of its head, its workers and this command.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from contracts.errors import UserError

VARIABLE = "RAY_ADDRESS"
_KNOCK_WITHIN_S = 5.0
_CHECK_WITHIN_S = 20.0
_TOLD = 160  # characters of Ray's reason
# Beside what the caller puts there. Small, so that a container's /dev/shm is enough.
_OBJECT_STORE_BYTES = 128 * 1024**2
# Set by `contracts`, for this process and for what it starts; torch reads it when it is loaded.
_PASSED_ON = ("OMP_WAIT_POLICY",)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the cluster offers.

    Parameters
    ----------
    local : it was started by this process and ends with it.
    cpus, gpus : of all its nodes.
    """

    local: bool
    cpus: float
    gpus: float

    def require(self, cpus: float, gpus: float) -> None:
        """Check that one trial of this size can run at all: Ray would wait for ever.

        Raises
        ------
        UserError : if the whole cluster is smaller than one trial.
        """
        if cpus > self.cpus or gpus > self.gpus:
            raise UserError(
                f"a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, the cluster has "
                f"{self.cpus:g} and {self.gpus:g}; ask for less, or join a larger one with "
                f"{VARIABLE}"
            )


@contextmanager
def cluster(
    cpus: int | None = None,
    address: str | None = None,
    log: bool = False,
    stored_bytes: int = 0,
) -> Iterator[Cluster]:
    """Be connected to a cluster.

    Parameters
    ----------
    cpus : of a local cluster; default: all of this machine's.
    address : `host:port` of the head, or `ray://host:port`. Default: `RAY_ADDRESS`, and without
        it a local cluster.
    log : show here what the workers print.
    stored_bytes : how much will be put into the object store of a local cluster.

    Raises
    ------
    UserError : if there is a cluster's address but it cannot be joined.
    """
    address = address or os.environ.get(VARIABLE)
    local = address in (None, "", "local")
    _quiet()
    if address is not None and not local:
        _knock(address)
    import ray

    try:
        if local:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=log,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES + stored_bytes,
            )
        else:
            ray.init(
                address=address,
                log_to_driver=log,
                logging_level=logging.ERROR,
                # Its workers do not inherit this process's environment, as local ones do.
                runtime_env={"env_vars": {name: os.environ[name] for name in _PASSED_ON}},
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(_refusal(address, str(error))) from error
    try:
        size = ray.cluster_resources()
        yield Cluster(local=local, cpus=size.get("CPU", 0.0), gpus=size.get("GPU", 0.0))
    finally:
        ray.shutdown()


def _quiet() -> None:
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    }.items():
        os.environ.setdefault(name, value)


def _knock(address: str) -> None:
    """Tell a dead address at once: `ray.init` waits for it without end."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_WITHIN_S).close()
    except (OSError, ValueError) as error:
        raise UserError(_refusal(address, str(error))) from error
    if address.startswith("ray://"):
        return
    # Something listens; only Ray's own check, in a process that can be ended, tells what it is.
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(check, capture_output=True, text=True, timeout=_CHECK_WITHIN_S)
    except subprocess.TimeoutExpired as error:
        raise UserError(_refusal(address, "something listens there, but no Ray head")) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise UserError(_refusal(address, lines[-1] if lines else "it is not healthy"))


def _refusal(address: str | None, reason: str) -> str:
    short = reason.strip().partition("\n")[0][:_TOLD]
    return (
        f"the Ray cluster at {address or 'this machine'} cannot be joined: {short}; correct or "
        f"unset {VARIABLE}, and give RAY_AUTH_MODE and RAY_AUTH_TOKEN if it asks for a token"
    )
