"""Where the explorer's answers come from: a bundle that it runs itself, or a server that it asks with a key the page
never sees.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol

from elude.handlers.errors import RequestError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.handlers.torchserve.client import Client, ServerError
from elude.handlers.web.batches import Batches

_FEATURES = 48  # sub-units whose top images are gathered for the choice of examples
_EXAMPLES = 24


class Backend(Protocol):
    """Answers requests of ``handlers/requests/schema.py`` as JSON."""

    name: str  # what the page calls it
    facts: dict[str, Any]  # the answer of 'describe'

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and JSON of one request."""
        ...


class Own:
    """Runs the bundle in this process."""

    def __init__(self, service: Service, name: str = "bundle") -> None:
        self.name = name
        self.facts = service.describe()
        self._batches = Batches(service)

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        answer = await self._batches.answer(Call(body))
        return answer.status, answer.body


class Remote:
    """Asks a server.

    Raises:
        RequestError: the server refuses, e.g. for a wrong key or model.
        UsageError: there is no server, or it is none of ours.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.name = client.url
        self.facts = client.describe()
        missing = {"limits", "preprocess", "layers"} - self.facts.keys()
        if missing:
            raise UsageError(
                f"{client.url} serves a model without {', '.join(sorted(missing))}.", "Package it with elude first."
            )

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._ask, body)

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        try:
            return 200, self._client.ask(body)
        except RequestError as error:
            return error.status, refusal(str(error), error.status)
        except (ServerError, UsageError) as error:
            return 502, refusal(str(error), 502)


def refusal(message: str, status: int) -> bytes:
    """The JSON of a refused request, as the servers write it."""
    return json.dumps({"code": status, "type": "RequestError", "message": message}).encode()


async def examples(backend: Backend) -> list[dict[str, Any]]:
    """Images to begin with: the top images of some sub-units, each class in turn; none if the model has no catalogue,
    or if its images are arrays, of which the catalogue holds no more than thumbnails.

    Returns:
        ``image`` (name), ``label``, ``png`` (base64) and ``from``, the sub-unit that it is a top image of.
    """
    if not Preprocess.from_json(backend.facts["preprocess"]).takes_pictures:
        return []
    units = [f"{layer['name']}/u{unit}.s0" for layer in backend.facts["layers"] for unit in range(layer["units"])]
    found: dict[str, dict[str, Any]] = {}
    chosen = units[:: max(1, len(units) // _FEATURES)][:_FEATURES]
    asked = [backend.ask(json.dumps({"op": "feature", "id": name, "examples": 6}).encode()) for name in chosen]
    for identifier, (status, body) in zip(chosen, await asyncio.gather(*asked), strict=True):
        if status != 200:
            return []
        for example in json.loads(body)["examples"]:
            found.setdefault(
                example["image"], {name: example[name] for name in ("image", "label", "png")} | {"from": identifier}
            )
    by_label: dict[str, list[dict[str, Any]]] = {}
    for example in found.values():
        by_label.setdefault(str(example["label"]), []).append(example)
    longest = max((len(some) for some in by_label.values()), default=0)
    return [some[rank] for rank in range(longest) for some in by_label.values() if rank < len(some)][:_EXAMPLES]
