"""The front end on Starlette and uvicorn: the same operations, statuses and bodies as on TorchServe, and the health and
metadata routes of the open inference protocol.

    ELUDE_TOKEN=… python -m elude.handlers.web BUNDLE --model NAME --port 8080 --workers 2
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from elude.handlers.requests import routes
from elude.handlers.requests.calls import Answer, Call
from elude.handlers.service import Service
from elude.handlers.web.batches import Batches
from elude.handlers.web.bodies import Bodies, read_call
from elude.handlers.web.health import Health
from elude.handlers.web.limits import WebLimits
from elude.handlers.web.metadata import model_metadata, server_metadata
from elude.handlers.web.metrics import Metrics

__all__ = ["Batches", "application", "uvicorn"]
logger = logging.getLogger("elude.web")


def application(
    service: Service, token: str | None, *, version: str = "1.0", batch_size: int = 8, limits: WebLimits = WebLimits()
) -> Starlette:
    """The web application.

    Args:
        service: answers.
        token: key that callers must send; None asks for none, for use behind a proxy that does.
        version: of the model, for routes that name one.
        batch_size: requests that may share a forward pass.
        limits: those that do not concern the connection, for which see ``bounded_protocol``.
    """
    front = _Front(service, token, version, batch_size, limits)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        front.close()

    table = [
        Route(route.path, front.endpoint(route), methods=[route.method])
        for route in routes.ROUTES
        if routes.WEB in route.fronts
    ]
    return Starlette(routes=table, lifespan=lifespan, exception_handlers={HTTPException: _refuse})  # type: ignore[dict-item]


class _Front:
    """What the routes do."""

    def __init__(self, service: Service, token: str | None, version: str, batch_size: int, limits: WebLimits) -> None:
        self._service, self._token, self._version = service, token, version
        self._metrics = Metrics(service.model, version)
        self._batches = Batches(service, batch_size, limits.max_waiting, self._metrics.add_batch)
        self._bodies = Bodies(limits, 2 * service.settings.limits.max_bytes + 2**16)
        self._health = Health(service, service.settings.recheck_s)

    def endpoint(self, route: routes.Route) -> Callable[[Request], Awaitable[Response]]:
        """The function that answers a route."""
        if route.asks in ("ask", "explain"):

            async def ask(request: Request) -> Response:
                return await self._ask(request, explain=route.asks == "explain")

            return ask
        answer = {
            "describe": self._describe,
            "ping": self._ping,
            "live": self._live,
            "ready": self._ready,
            "status": self._status,
            "models": self._models,
            "server": self._server,
            "metadata": self._metadata,
            "metrics": self._scrape,
        }[route.asks]

        async def get(request: Request) -> Response:
            if route.key:
                self._check(request)
            return await answer()

        return get

    def close(self) -> None:
        """End all threads."""
        self._batches.close()
        self._health.close()

    def _check(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if self._token is not None and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise HTTPException(401, "The key is missing or wrong.", {"connection": "close"})
        model, version = (request.path_params.get(name) for name in ("model", "version"))
        if model not in (None, self._service.model):
            raise HTTPException(404, f"Model not found: {model[:100]}")
        if version not in (None, self._version):
            raise HTTPException(404, f"Model {model} has no version {version[:100]}; {self._version} is served.")

    async def _ask(self, request: Request, explain: bool) -> Response:
        self._check(request)
        try:
            async with self._bodies.receive(request) as body:
                return await self._answered(await read_call(request, body, explain))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    async def _describe(self) -> Response:
        return await self._answered(Call(None, describe=True))

    async def _answered(self, call: Call) -> Response:
        begin = time.perf_counter()
        answer = await self._batches.answer(call)
        seconds = time.perf_counter() - begin
        self._metrics.add(answer, seconds)
        self._note(answer, seconds)
        return Response(answer.body, answer.status, media_type="application/json")

    def _note(self, answer: Answer, seconds: float) -> None:
        """A log line that holds nothing of the request's content."""
        log = self._service.settings.log
        if log == "all" or (log == "refused" and answer.status != 200):
            names = {"event": "answered", "model": self._service.model, "version": self._version}
            facts = {"operation": answer.operation, "status": answer.status, "bytes": len(answer.body)}
            logger.info(json.dumps(names | facts | {"ms": round(seconds * 1000, 2)}))

    async def _ping(self) -> Response:
        if problem := self._health.problem():
            raise HTTPException(500, f"Unhealthy: {problem}")
        return JSONResponse({"status": "Healthy"})

    async def _live(self) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self) -> Response:
        ready = not self._health.problem()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _status(self) -> Response:
        ready = not self._health.problem()
        return JSONResponse({"name": self._service.model, "ready": ready}, 200 if ready else 503)

    async def _models(self) -> Response:
        return JSONResponse({"models": [self._service.model]})

    async def _server(self) -> Response:
        return JSONResponse(server_metadata())

    async def _metadata(self) -> Response:
        return JSONResponse(model_metadata(self._service, self._version))

    async def _scrape(self) -> Response:
        content, kind = self._metrics.exposition()
        return Response(content, media_type=kind)


def _refuse(request: Request, error: HTTPException) -> Response:
    body = {"code": error.status_code, "type": "RequestError", "message": error.detail}
    return JSONResponse(body, error.status_code, error.headers)
