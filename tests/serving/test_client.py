"""The client gives what the service gives, and its errors in the service's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from contracts import volume
from contracts.errors import UserError
from serving.client import Client


@pytest.fixture
def client(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose requests go to the service without a socket."""

    def post(url: str, json: dict[str, Any], timeout: httpx.Timeout) -> httpx.Response:
        answer = service.post(url.removeprefix("http://there"), json=json)
        return httpx.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content
        )

    monkeypatch.setattr(httpx, "post", post)
    return Client("http://there/")


def test_a_sample_can_be_saved(client: Client, tmp_path: Path) -> None:
    sample = client.sample(age=65, sex="F", seed=1, steps=2)
    path = sample.save(tmp_path / "fa.nii.gz")
    assert volume.read_recipe(path) == sample.recipe
    assert sample.recipe["Seeds"] == [1]
    assert sample.name.endswith("_dwimap.nii.gz")
    assert sample.warnings == []


def test_defaults_are_those_of_the_service(client: Client, service: TestClient) -> None:
    assert client.sample(age=65, sex="F").volume == (
        service.post("/sample", json={"age": 65, "sex": "F"}).content
    )


def test_warnings_arrive(client: Client) -> None:
    (warning,) = client.sample(age=95, sex="F", steps=1).warnings
    assert "outside the training coverage" in warning


def test_models_are_listed(client: Client) -> None:
    assert {model["dim"] for model in client.models()} == {"2d", "3d"}


def test_a_refusal_names_the_value(client: Client) -> None:
    with pytest.raises(UserError, match=r"refused \(400\): age: Input should be less than"):
        client.sample(age=300, sex="F")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": "no 2d generator"}', "no 2d generator"),
        (b'[{"error": "of bentoml"}]', "of bentoml"),
        (b"bad gateway", "bad gateway"),
        (b"", "Not Found"),
    ],
)
def test_every_form_of_error_is_told(
    body: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(404, content=body))
    with pytest.raises(UserError, match=expected):
        Client().models()


def test_another_server_is_not_taken_for_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "post", lambda *_, **__: httpx.Response(200, content=b"<html>"))
    for ask in (Client().models, lambda: Client().sample(age=65, sex="F")):
        with pytest.raises(UserError, match="not the sampling service"):
            ask()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[bad"])
def test_no_server_says_how_to_start_one(url: str) -> None:
    with pytest.raises(UserError, match="make serve"):
        Client(url).sample(age=65, sex="F")
