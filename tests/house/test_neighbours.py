"""Every way in lets OpenMP's threads sleep while they wait, before torch is loaded."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time

import pytest

from contracts.closure import ROOT
from services.compute.cluster import cluster
from tests.test_commands import MODULES, SCRIPTS

VARIABLE = "OMP_WAIT_POLICY"
# Says what the variable was when torch was about to be loaded for the first time.
WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("TORCH", os.environ.get("OMP_WAIT_POLICY"))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Watch())
"""


def bare(**variables: str) -> dict[str, str]:
    """The environment of a user who has set nothing but these."""
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def policy_at_torch(code: str, **variables: str) -> str:
    """The variable's value when torch is first asked for, by `code` or after it."""
    done = subprocess.run(
        [sys.executable, "-c", f"{WATCH}{code}\nimport torch\n"],
        cwd=ROOT,
        env=bare(**variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip().rpartition("TORCH ")[2]


def started(name: str) -> str:
    """Code that starts a command with --help."""
    run = "run_path" if name.endswith(".py") else "run_module"
    return (
        f"import runpy\nsys.argv = [{name!r}, '--help']\n"
        f"try:\n    runpy.{run}({name!r}, run_name='__main__')\nexcept SystemExit:\n    pass\n"
    )


@pytest.mark.parametrize("name", MODULES + SCRIPTS)
def test_a_command_sets_it_before_torch_is_loaded(name: str) -> None:
    assert policy_at_torch(started(name)) == "PASSIVE"


def test_what_the_user_has_set_stays() -> None:
    assert policy_at_torch(started("training.train"), OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


def test_without_us_it_is_not_set() -> None:
    assert policy_at_torch("") == "None"


def test_the_service_sets_it_before_torch_is_loaded() -> None:
    assert policy_at_torch("import serving.service") == "PASSIVE"


def test_tests_run_with_it() -> None:
    assert os.environ[VARIABLE] in ("PASSIVE", "ACTIVE")


def test_containers_have_it() -> None:
    lines = (ROOT / "infra/Dockerfile").read_text().partition("FROM base AS build\n")[0]
    assert f"{VARIABLE}=PASSIVE" in lines


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_workers_of_this_machines_cluster_have_it() -> None:
    import ray

    with cluster(cpus=1):
        assert ray.get(ray.remote(os.getenv).remote(VARIABLE)) == os.environ[VARIABLE]


JOIN = """
import os, sys
from services.compute import cluster
cluster._CHECK_WITHIN_S = 300.0  # a busy machine may need minutes
import ray
with cluster.cluster(address=sys.argv[1]):
    print("WORKER", ray.get(ray.remote(os.getenv).remote("OMP_WAIT_POLICY")))
"""


def test_workers_of_another_cluster_get_it() -> None:
    port = free_port()
    environment = bare(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--port={port}", "--num-cpus=1", "--include-dashboard=false"),
            *("--object-store-memory=100000000", "--include-log-monitor=false"),
            *("--disable-usage-stats",),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert head.poll() is None
            time.sleep(0.5)
        done = subprocess.run(
            [sys.executable, "-c", JOIN, f"127.0.0.1:{port}"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert "WORKER PASSIVE" in done.stdout.splitlines(), done.stderr
    finally:
        head.terminate()
        head.wait()
