"""The service: files, recipes, errors, and bytes that no other request can change."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from contracts import volume
from models.config import Dim
from models.generator import Generator
from registry.champion import Fetched
from serving.messages import sample_request
from serving.sampling import champion_model, sample
from tests.serving.conftest import AGES, SPACE, started

ASKED: dict[str, Any] = {"dim": "3d", "age": 65, "sex": "F", "seed": 1, "steps": 2, "map": "fa"}


def test_a_sample_is_a_file_with_its_recipe(service: TestClient, tmp_path: Path) -> None:
    answer = service.post("/sample", json=ASKED)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/gzip"
    name = "sub-synth3dage65sexFseed1_space-tiny_model-tensor_param-fa_dwimap.nii.gz"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    path = tmp_path / name
    path.write_bytes(answer.content)
    assert volume.read_on(path, SPACE).max() > 0
    assert volume.read_recipe(path) == json.loads(answer.headers["x-recipe"])
    assert "x-warning" not in answer.headers


@pytest.mark.parametrize(
    "change", [{}, {"dim": "2d"}, {"map": "md"}, {"count": 3}, {"age": 65.25, "sex": "M"}], ids=str
)
def test_service_and_library_give_the_same_bytes(
    service: TestClient, champions: dict[Dim, Fetched], change: dict[str, Any]
) -> None:
    asked = {**ASKED, **change}
    request = sample_request(asked)
    expected = sample(champion_model(request.dim), request)
    answer = service.post("/sample", json=asked)
    assert answer.content == expected.volume
    assert expected.name in answer.headers["content-disposition"]


def test_other_requests_change_no_bytes(service: TestClient) -> None:
    asked = [{**ASKED, "seed": seed, "dim": dim} for seed in range(3) for dim in ("2d", "3d")]

    def one(body: dict[str, Any]) -> bytes:
        answer = service.post("/sample", json=body)
        assert answer.status_code == 200
        return bytes(answer.content)

    alone = [one(body) for body in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(one, reversed(asked)))
    assert together[::-1] == alone
    assert len(set(alone)) == len(alone)


def test_requests_are_sampled_one_at_a_time(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = threading.Semaphore(1)
    original: Callable[..., Any] = Generator.sample

    def watched(*arguments: Any) -> Any:
        assert sampling.acquire(blocking=False), "two requests sample at once"
        try:
            return original(*arguments)
        finally:
            sampling.release()

    monkeypatch.setattr(Generator, "sample", watched)
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(
            lambda seed: service.post("/sample", json={**ASKED, "seed": seed}), range(4)
        )
        assert [answer.status_code for answer in answers] == [200] * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"age": 121},
        {"age": -1},
        {"age": None},
        {"sex": "x"},
        {"dim": "4d"},
        {"map": "t1w"},
        {"steps": 0},
        {"steps": 201},
        {"count": 0},
        {"count": 33},
        {"seed": -1},
        {"seed": 1.5},
        {"agee": 3},
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_name(service: TestClient, wrong: dict[str, Any]) -> None:
    answer = service.post("/sample", json={**ASKED, **wrong})
    assert answer.status_code == 400
    assert [d["loc"] for d in answer.json()["detail"]] == [[next(iter(wrong))]]
    assert answer.json()["detail"][0]["msg"]
    assert answer.json()["error"] == "1 validation error for request"


@pytest.mark.parametrize("body", [b"{age", b"[]", b'"text"', b'{"age": NaN, "sex": "F"}', b""])
def test_a_body_that_is_no_request_is_refused(service: TestClient, body: bytes) -> None:
    answer = service.post("/sample", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_a_form_is_as_good_as_json(service: TestClient) -> None:
    form = service.post("/sample", data={name: str(value) for name, value in ASKED.items()})
    assert form.status_code == 200
    assert form.content == service.post("/sample", json=ASKED).content


def test_pickles_are_refused(service: TestClient) -> None:
    kind = {"content-type": "application/vnd.bentoml+pickle"}
    assert service.post("/sample", content=b"\x80\x04N.", headers=kind).status_code == 415


def test_an_age_outside_the_coverage_is_made_and_told(service: TestClient) -> None:
    answer = service.post("/sample", json={**ASKED, "age": AGES[1] + 5})
    assert answer.status_code == 200
    assert "outside the training coverage" in answer.headers["x-warning"]
    assert json.loads(answer.headers["x-recipe"])["Warnings"] == [answer.headers["x-warning"]]


def test_models_are_listed(service: TestClient, champions: dict[Dim, Fetched]) -> None:
    listed = {entry["dim"]: entry for entry in service.post("/models").json()}
    assert {dim: entry["digest"] for dim, entry in listed.items()} == {
        dim: champion.digest for dim, champion in champions.items()
    }
    assert listed["3d"]["name"] == "dti-3d"
    assert listed["3d"]["version"] == "3"
    assert listed["3d"]["maps"] == ["fa", "md"]
    assert listed["3d"]["age_coverage"] == list(AGES)
    assert listed["3d"]["space"] == SPACE.to_json()


def test_it_is_healthy(service: TestClient) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert service.get(path).status_code == 200


def test_openapi_tells_the_fields(service: TestClient) -> None:
    spec = service.get("/docs.json").json()
    post = spec["paths"]["/sample"]["post"]
    fields = post["requestBody"]["content"]["application/json"]["schema"]
    assert fields["required"] == ["age", "sex"]
    assert (fields["properties"]["age"]["minimum"], fields["properties"]["age"]["maximum"]) == (
        0,
        120,
    )
    assert fields["properties"]["dim"]["enum"] == ["2d", "3d"]
    assert list(post["responses"]["200"]["content"]) == ["application/gzip"]
    assert "/models" in spec["paths"]


def test_a_missing_champion_stops_only_its_own_dimension(champions: dict[Dim, Fetched]) -> None:
    del champions["2d"]
    with started() as client:
        refused = client.post("/sample", json={**ASKED, "dim": "2d"})
        assert refused.status_code == 404
        assert "no 2d generator" in refused.json()["error"]
        assert "dvc repro" in refused.json()["error"]
        assert client.post("/sample", json=ASKED).status_code == 200
        assert [entry["dim"] for entry in client.post("/models").json()] == ["3d"]
        assert client.get("/readyz").status_code == 200


def test_without_any_champion_it_lives_but_is_not_ready(champions: dict[Dim, Fetched]) -> None:
    champions.clear()
    with started() as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.post("/models").json() == []


def test_a_map_that_the_generator_does_not_make_is_refused(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "maps", property(lambda self: ()))
    answer = service.post("/sample", json=ASKED)
    assert answer.status_code == 400
    assert "not fa" in answer.json()["error"]
