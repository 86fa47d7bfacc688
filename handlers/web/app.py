"""A second front end, on Starlette and uvicorn, which are maintained: the same operations, statuses and bodies as on
TorchServe.

    ELUDE_TOKEN=… python -m elude.handlers.web.app BUNDLE --model NAME --port 8080

Requests that come while a forward pass runs share the next one. ``GET /metrics`` counts by operation and status.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
from collections import Counter
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError
from elude.handlers.requests.calls import Answer, Call
from elude.handlers.service import Service
from elude.handlers.settings import read_settings


class Batches:
    """Collects calls while a pass runs; the next pass answers them together.

    A failure reaches each caller of its batch.
    """

    def __init__(self, service: Service, size: int, most_waiting: int) -> None:
        self._service, self._size, self._most = service, size, most_waiting
        self._running = asyncio.Lock()
        self._open: list[tuple[list[Call], asyncio.Task[list[Answer]]]] = []
        self.counts: Counter[tuple[str, int]] = Counter()

    async def answer(self, call: Call) -> Answer:
        """The answer to one call; 503 if too many wait already."""
        if len(self._open) * self._size >= self._most:
            raise HTTPException(503, "Too many requests are waiting.")
        if not self._open or len(self._open[-1][0]) == self._size:
            calls: list[Call] = []
            self._open.append((calls, asyncio.create_task(self._run(calls))))
        calls, task = self._open[-1]
        calls.append(call)
        place = len(calls) - 1
        answer = (await asyncio.shield(task))[place]  # a caller that goes away must not end its neighbours' pass
        self.counts[answer.operation, answer.status] += 1
        return answer

    async def _run(self, calls: list[Call]) -> list[Answer]:
        async with self._running:
            self._open.pop(0)  # closed: the lock is given in the order of asking
            return await asyncio.to_thread(self._service.answer, calls)


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request; 413 as soon as more than ``most`` bytes came."""
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > most:
            raise HTTPException(413, f"The request has more than the {most} bytes that are allowed.")
    return bytes(body)


def application(service: Service, token: str | None, *, batch_size: int = 8) -> Starlette:
    """The web application; without a ``token`` it asks for none, for use behind a proxy that does."""
    batches = Batches(service, batch_size, 1000)

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise HTTPException(401, "The key is missing or wrong.")
        if request.path_params.get("model", service.model) != service.model:
            raise HTTPException(404, f"Model not found: {request.path_params['model'][:100]}")

    async def ask(request: Request) -> Response:
        check(request)
        body = await read_body(request, 2 * service.settings.limits.max_bytes + 2**16)
        text = request.headers.get("content-type", "").startswith("text/")
        call = Call(body.decode(errors="replace") if text else body, explain="explanations" in request.url.path)
        answer = await batches.answer(call if request.method == "POST" else Call(None, describe=True))
        return Response(answer.body, answer.status, media_type="application/json")

    async def ping(request: Request) -> Response:
        check(request)
        try:
            await asyncio.to_thread(Bundle.open, service.bundle.root)
            service.admission.require_current()
        except (BundleError, GateError) as error:
            raise HTTPException(500, f"Unhealthy: {error}") from error
        return JSONResponse({"status": "Healthy"})

    async def metrics(request: Request) -> Response:
        check(request)
        counts = sorted(batches.counts.items())
        lines = [
            f'elude_requests_total{{operation="{name}",status="{status}"}} {count}' for (name, status), count in counts
        ]
        return PlainTextResponse("\n".join(["# TYPE elude_requests_total counter", *lines, ""]))

    def refuse(request: Request, error: HTTPException) -> Response:
        return JSONResponse(
            {"code": error.status_code, "type": "RequestError", "message": error.detail}, error.status_code
        )

    paths = ["/predictions/{model}", "/explanations/{model}", "/v1/models/{model}:predict", "/v2/models/{model}/infer"]
    routes = [Route(path, ask, methods=["POST"]) for path in paths] + [
        Route("/models/{model}", ask),
        Route("/ping", ping),
    ]
    return Starlette(routes=[*routes, Route("/metrics", metrics)], exception_handlers={HTTPException: refuse})  # type: ignore[dict-item]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one bundle on loopback; settings, requirements and the key from ``ELUDE_SETTINGS``, ``ELUDE_ADMISSION``
    and ``ELUDE_TOKEN``.
    """
    parser = argparse.ArgumentParser(description="Serve a bundle on uvicorn.")
    parser.add_argument("bundle")
    for name, default in (("model", "elude"), ("host", "127.0.0.1"), ("port", 8080)):
        parser.add_argument(f"--{name}", default=default, type=type(default))
    given = parser.parse_args(arguments)
    token = os.environ.get("ELUDE_TOKEN")
    if not token:
        parser.error("set ELUDE_TOKEN to the key that callers must send")
    requirements = Requirements.load()
    if requirements.archives is not None:
        raise GateError(
            "This server may load listed archives only, and was given a bundle.",
            "Require a verdict or a signature instead.",
        )
    service = Service.open(given.bundle, read_settings({}), model=given.model, requirements=requirements)
    uvicorn.run(application(service, token), host=given.host, port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
