"""A small Python client of the sampling service.

BentoML's own client returns the file alone; the name and the recipe of a sample are in the headers
of the answer.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from contracts.errors import UserError
from serving.messages import STEPS, Sample, explain

if TYPE_CHECKING:
    import httpx

URL = "http://127.0.0.1:3000"
_ANSWER_WITHIN_S = 3600.0
_CONNECT_WITHIN_S = 5.0


class Client:
    """Asks the sampling service at `url`.

    >>> Client().sample(dim="3d", age=65, sex="F", seed=1).save("fa.nii.gz")  # doctest: +SKIP
    """

    def __init__(self, url: str = URL) -> None:
        self.url = url.rstrip("/")

    def sample(
        self,
        *,
        age: float,
        sex: str,
        site: str | None = None,
        adapter: str | None = None,
        strength: float = 1.0,
        dim: str = "3d",
        seed: int = 0,
        steps: int = STEPS,
        map: str = "fa",
        count: int = 1,
    ) -> Sample:
        """Have volumes made; see `serving.messages.SampleRequest` for the values.

        Raises
        ------
        UserError : if the service does not answer or refuses; with its own words.
        """
        asked = {
            "age": age,
            "sex": sex,
            "site": site,
            "adapter": adapter,
            "strength": strength,
            "dim": dim,
            "seed": seed,
            "steps": steps,
            "map": map,
            "count": count,
        }
        answer = self._post("/sample", asked)
        name = re.search(r'filename="([^"/\\]+)"', answer.headers.get("Content-Disposition", ""))
        recipe = answer.headers.get("X-Recipe")
        if name is None or recipe is None:
            raise UserError(f"{self.url} is not the sampling service: it sent no named volume")
        return Sample(answer.content, json.loads(recipe), name.group(1))

    def models(self) -> list[dict[str, Any]]:
        """The generators that the service has loaded.

        Raises
        ------
        UserError : if the service does not answer.
        """
        answer = self._post("/models", {})
        try:
            loaded: list[dict[str, Any]] = answer.json()
        except ValueError as error:
            raise UserError(f"{self.url} is not the sampling service: it sent no JSON") from error
        return loaded

    def _post(self, path: str, content: dict[str, Any]) -> httpx.Response:
        import httpx

        patience = httpx.Timeout(_ANSWER_WITHIN_S, connect=_CONNECT_WITHIN_S)
        try:
            answer = httpx.post(self.url + path, json=content, timeout=patience)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserError(
                f"no answer from {self.url} ({error}): start the service with `make serve`"
            ) from error
        if answer.status_code != HTTPStatus.OK:
            raise UserError(f"{self.url} refused ({answer.status_code}): {_reason(answer)}")
        return answer


def _reason(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text.strip() or answer.reason_phrase
    # BentoML's own errors come in a list.
    body = body[0] if isinstance(body, list) and body else body
    if not isinstance(body, dict):
        return str(body)
    return explain(body["detail"]) if "detail" in body else str(body.get("error", body))
