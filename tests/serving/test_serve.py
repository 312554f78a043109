"""The service as its users meet it: `bentoml serve`, curl, the client and the command line."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from contracts import volume
from contracts.errors import UserError
from models.config import Dim
from models.generator import Generator
from registry import versions
from registry.packaging import save_model
from services.tracking import start_run
from serving import metrics
from serving.client import Client
from serving.messages import Sample
from tests.serving.conftest import SPACE

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
_READY_WITHIN_S = 180


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def champion_store(
    store_template: Path, folders: dict[Dim, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A tracking store whose 3D champion is a tiny generator; there is no 2D one."""
    root = tmp_path_factory.mktemp("served")
    shutil.copy(store_template, root / "mlflow.db")
    folder = folders["3d"]
    generator = Generator.load(folder)
    name = versions.model_name("3d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        patch.setenv("DTI_CACHE", str(root / "cache"))
        patch.setenv("BENTOML_HOME", str(root / "bentoml"))
        patch.setenv("BENTOML_DO_NOT_TRACK", "true")
        with start_run("acceptance", "tiny", {}, {}) as run:
            pass
        version = versions.add(
            name,
            lambda path, entity: save_model(name, generator, folder, path, entity),
            run_id=run.id,
            tags={"digest": generator.digest},
            description="",
        )
        versions.promote(name, str(version.version))
        yield


@pytest.fixture(scope="module")
def served(champion_store: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the service that serves that store."""
    port = _free_port()
    path = tmp_path_factory.mktemp("log") / "serve.log"
    with path.open("w") as log:
        server = subprocess.Popen(
            ["bentoml", "serve", "serving.service:SyntheticDTI", "--port", str(port)],
            executable=Path(sys.executable).with_name("bentoml"),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, server, path)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"not ready:\n{log.read_text()}")


@pytest.fixture(scope="module")
def sample(served: str) -> Sample:
    """What the client gets."""
    return Client(served).sample(dim="3d", age=65, sex="F", seed=1, steps=2, map="md")


def _line(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "serving.sample", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, timeout=_READY_WITHIN_S)


def test_the_command_line_gives_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    asked = "--dim 3d --age 65 --sex F --seed 1 --steps 2 --map md"
    _line(*asked.split(), "--output", tmp_path / "md.nii.gz")
    assert (tmp_path / "md.nii.gz").read_bytes() == sample.volume


def test_the_command_line_replays_it(sample: Sample, tmp_path: Path) -> None:
    path = sample.save(tmp_path / "md.nii.gz")
    assert volume.read_on(path, SPACE).max() > 0
    _line("--replay", path)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_curl_saves_the_same_bytes_under_their_name(
    served: str, sample: Sample, tmp_path: Path
) -> None:
    body = '{"dim": "3d", "age": 65, "sex": "F", "seed": 1, "steps": 2, "map": "md"}'
    kind = "content-type: application/json"
    command = ["curl", "-sS", "--fail", "-OJ", "-H", kind, "-d", body, f"{served}/sample"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=_READY_WITHIN_S)
    assert (tmp_path / sample.name).read_bytes() == sample.volume


def test_others_at_the_same_time_change_no_bytes(served: str, sample: Sample) -> None:
    def one(seed: int) -> bytes:
        return Client(served).sample(age=65, sex="F", seed=seed, steps=2, map="md").volume

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(one, [3, 1, 2, 1]))
    assert made[1] == made[3] == sample.volume
    assert len(set(made)) == 3


def test_the_dimension_without_champion_says_how_to_get_one(served: str) -> None:
    with pytest.raises(UserError, match=r"no 2d generator.*dvc repro"):
        Client(served).sample(dim="2d", age=65, sex="F")


def test_metrics_count_the_volumes(served: str) -> None:
    def volumes() -> float:
        text = httpx.get(f"{served}/metrics").text
        found = [line for line in text.splitlines() if line.startswith('dti_volumes_total{dim="3d')]
        return sum(float(line.split()[-1]) for line in found)

    before = volumes()
    Client(served).sample(age=65, sex="F", steps=1, count=3)
    assert volumes() == before + 3
    text = httpx.get(f"{served}/metrics").text
    for bucket in metrics.SECONDS:
        assert f'dti_sampling_seconds_bucket{{dim="3d",le="{bucket}"}}' in text
        assert f'endpoint="/sample",http_response_code="200",le="{bucket}"' in text


def test_only_this_machine_can_reach_it(served: str) -> None:
    # Linux answers on 127.0.0.2 too where a server listens on every address.
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
        socket.create_connection(("127.0.0.2", int(served.rpartition(":")[2])), timeout=5).close()
