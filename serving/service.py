"""The sampling service: the registered champions behind HTTP.

`bentoml serve serving.service:SyntheticDTI`
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from http import HTTPStatus
from time import perf_counter
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from starlette.responses import JSONResponse, Response

from contracts.errors import UserError
from models.config import Dim
from serving import metrics
from serving.messages import DIMS, Sample, SampleRequest, sample_request
from serving.sampling import Model, champion_model, describe, sample

MEDIA_TYPE = "application/gzip"
# The longest request (32 volumes of 200 steps) behind others, on a slow laptop.
TIMEOUT_S = 3600
WAITING_LIMIT = 32
_LOOK_EVERY_S = 0.5

log = logging.getLogger("bentoml.serving")


class Stopped(Exception):
    """Nobody waits for the volume any more."""


@bentoml.service(
    http={"host": "127.0.0.1", "port": 3000},
    traffic={"timeout": TIMEOUT_S, "max_concurrency": WAITING_LIMIT},
    metrics={"enabled": True, "duration": {"buckets": list(metrics.SECONDS)}},
)
class SyntheticDTI:
    """Synthetic FA and MD volumes of a requested age and sex. Not of any person; research only."""

    def __init__(self) -> None:
        self._models: dict[Dim, Model] = {}
        self._missing: dict[Dim, str] = {}
        # Sampling uses the whole processor share of this worker: one request at a time.
        self._turn = asyncio.Lock()
        for dim in DIMS:
            try:
                self._models[dim] = _warmed(champion_model(dim))
            except UserError as error:
                self._missing[dim] = f"no {dim} generator is loaded: {error}"
                log.warning(self._missing[dim])

    def __is_ready__(self) -> bool:
        return bool(self._models)

    @bentoml.api  # type: ignore[untyped-decorator]
    async def models(self) -> list[dict[str, Any]]:
        """The generators that are loaded: name, version, digest, maps, age coverage, space."""
        return [describe(model) for model in self._models.values()]

    @bentoml.api  # type: ignore[untyped-decorator]
    async def sample(
        self, request: SampleRequest, /, ctx: bentoml.Context
    ) -> Annotated[bytes, ContentType(MEDIA_TYPE)]:
        """Make volumes. The answer is a NIfTI file (.nii.gz) with its recipe in the header."""
        answer = await self._answer(request, ctx)
        ctx.response.status_code = answer.status_code
        # BentoML passes a Response on as it is; the annotation is what OpenAPI tells.
        return answer  # type: ignore[return-value]

    async def _answer(self, request: SampleRequest, ctx: bentoml.Context) -> Response:
        model = self._models.get(request.dim)
        if model is None:
            return _error(HTTPStatus.NOT_FOUND, self._missing[request.dim])
        try:
            async with self._turn:
                made = await _watched(model, request, ctx)
        except UserError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except Stopped:
            return _error(HTTPStatus.REQUEST_TIMEOUT, "the client went away")
        metrics.volumes_total().labels(request.dim, request.map).inc(request.count)
        headers = {
            "Content-Disposition": f'attachment; filename="{made.name}"',
            "X-Recipe": json.dumps(made.recipe, sort_keys=True),
        }
        if made.warnings:
            headers["X-Warning"] = "; ".join(made.warnings)
        return Response(made.volume, media_type=MEDIA_TYPE, headers=headers)


def _warmed(model: Model) -> Model:
    """Sample once, so that the first request does not pay for the set-up of the libraries."""
    first = model.generator.maps[0].name
    asked = {"dim": model.generator.dim, "age": 50, "sex": "F", "steps": 1, "map": first}
    sample(model, sample_request(asked))
    return model


async def _watched(model: Model, request: SampleRequest, ctx: bentoml.Context) -> Sample:
    """Sample in a thread, and stop at the next step once the client has gone."""
    stop = threading.Event()

    def on_step(done: int, total: int) -> None:
        if stop.is_set():
            raise Stopped

    def work() -> Sample:
        start = perf_counter()
        made = sample(model, request, on_step=on_step)
        metrics.sampling_seconds().labels(request.dim).observe(perf_counter() - start)
        return made

    if await ctx.request.is_disconnected():
        raise Stopped
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_EVERY_S)
            if not task.done() and await ctx.request.is_disconnected():
                stop.set()
        return task.result()
    finally:
        # A time-out cancels this coroutine but not the thread: keep the turn until it is done.
        stop.set()
        await asyncio.wait({task})
        task.exception()  # taken note of, or asyncio would complain that nobody did


def _error(status: HTTPStatus, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
