"""The front end on Starlette and uvicorn: the same operations, statuses and bodies as on TorchServe, and the health and
metadata routes of the open inference protocol.

    ELUDE_TOKEN=… python -m elude.handlers.web BUNDLE --model NAME --port 8080 --workers 2
"""

from __future__ import annotations

import asyncio
import hmac
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
from elude.handlers.web.batches import Batches, Moments
from elude.handlers.web.bodies import Bodies, read_call
from elude.handlers.web.limits import WebLimits
from elude.handlers.web.metadata import model_metadata, model_status, server_metadata
from elude.handlers.web.models import Models, Served
from elude.handlers.web.reload import Reloader
from elude.handlers.web.tracing import RequestSpan, Tracing

__all__ = ["Batches", "application", "uvicorn"]
logger = logging.getLogger("elude.web")


def application(
    served: Service | Models,
    token: str | None,
    *,
    limits: WebLimits = WebLimits(),
    reloader: Reloader | None = None,
    tracing: Tracing = Tracing(),
) -> Starlette:
    """The web application.

    Args:
        served: the models that answer; a service is version 1.0 of one.
        token: key that callers must send; None asks for none, for use behind a proxy that does.
        limits: those that do not concern the connection, for which see ``bounded_protocol``.
        reloader: exchanges the models while it runs.
        tracing: gives requests their spans.
    """
    models = served if isinstance(served, Models) else Models.of(served, limits=limits)
    front = _Front(models, token, tracing)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if reloader is not None:
            reloader.start(asyncio.get_running_loop())
        yield
        if reloader is not None:
            reloader.stop()
        models.close()

    table = [
        Route(route.path, front.endpoint(route), methods=[route.method])
        for route in routes.ROUTES
        if routes.WEB in route.fronts
    ]
    app = Starlette(routes=table, lifespan=lifespan, exception_handlers={HTTPException: _refuse})  # type: ignore[dict-item]
    app.router.redirect_slashes = False  # to where the Host header says; the key would go along
    return app


class _Front:
    """What the routes do."""

    def __init__(self, models: Models, token: str | None, tracing: Tracing) -> None:
        self._models, self._token, self._tracing = models, token, tracing
        largest = max(served.service.settings.limits.max_bytes for served in models.table.all)
        self._bodies = Bodies(models.limits, 2 * largest + 2**16)

    def endpoint(self, route: routes.Route) -> Callable[[Request], Awaitable[Response]]:
        """The function that answers a route."""
        if route.asks in ("ask", "explain"):

            async def ask(request: Request) -> Response:
                with self._tracing.request(request.method, route.path, request.headers) as span:
                    return await self._ask(request, route.asks == "explain", span)

            return ask
        answer = {
            "describe": self._describe,
            "ping": self._ping,
            "live": self._live,
            "ready": self._ready,
            "status": self._status,
            "model_ready": self._model_ready,
            "models": self._names,
            "server": self._server,
            "metadata": self._metadata,
            "metrics": self._scrape,
        }[route.asks]

        async def get(request: Request) -> Response:
            if route.key:
                self._check_key(request)
            return await answer(request)

        return get

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if self._token is not None and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise HTTPException(401, "The key is missing or wrong.", {"connection": "close"})

    def _find(self, request: Request) -> Served:
        """The version that the address names."""
        return self._models.table.find(**request.path_params)

    async def _ask(self, request: Request, explain: bool, span: RequestSpan) -> Response:
        moments = Moments(asked=time.time_ns())
        self._check_key(request)
        self._find(request)  # a body for nobody is not received
        try:
            async with self._bodies.receive(request) as body:
                moments.received = time.time_ns()
                return await self._answered(request, await read_call(request, body, explain), span, moments)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    async def _describe(self, request: Request) -> Response:
        return await self._answered(request, Call(None, describe=True), RequestSpan(), Moments())

    async def _answered(self, request: Request, call: Call, span: RequestSpan, moments: Moments) -> Response:
        begin = time.perf_counter()
        with self._find(request).in_use() as served:
            answer = await served.batches.answer(call, moments)
            seconds = time.perf_counter() - begin
            self._models.metrics.add(served.names, answer, seconds)
            span.answered(*served.names, answer, moments)
            _note(served, answer, seconds, span)
        return Response(answer.body, answer.status, media_type="application/json")

    async def _ping(self, request: Request) -> Response:
        if problem := self._models.table.unhealthy():
            raise HTTPException(500, f"Unhealthy: {problem}")
        problems = self._models.table.problems
        return JSONResponse({"status": "Healthy"} | ({"reload": dict(problems)} if problems else {}))

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = not self._models.table.unhealthy()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _status(self, request: Request) -> Response:
        served, table = self._find(request), self._models.table
        named = len(request.path_params) > 1
        body = model_status(table, [served] if named else table.versions[served.service.model])
        return JSONResponse(body, 200 if body["ready"] else 503)

    async def _model_ready(self, request: Request) -> Response:
        served = self._find(request)
        problem = served.health.problem()
        return JSONResponse({"name": served.service.model, "ready": not problem}, 503 if problem else 200)

    async def _names(self, request: Request) -> Response:
        return JSONResponse({"models": list(self._models.table.versions)})

    async def _server(self, request: Request) -> Response:
        return JSONResponse(server_metadata())

    async def _metadata(self, request: Request) -> Response:
        served = self._find(request)
        versions = [other.version for other in self._models.table.versions[served.service.model]]
        return JSONResponse(model_metadata(served.service, versions))

    async def _scrape(self, request: Request) -> Response:
        content, kind = self._models.metrics.exposition()
        return Response(content, media_type=kind)


def _note(served: Served, answer: Answer, seconds: float, span: RequestSpan) -> None:
    """A log line that holds nothing of the request's content."""
    log = served.service.settings.log
    if log == "all" or (log == "refused" and answer.status != 200):
        model, version = served.names
        facts: dict[str, object] = {"event": "answered", "model": model, "version": version}
        facts |= {
            "operation": answer.operation,
            "status": answer.status,
            "bytes": len(answer.body),
            "ms": round(seconds * 1000, 2),
        }
        logger.info("answered", extra={"fields": {**facts, **span.names}})


def _refuse(request: Request, error: HTTPException) -> Response:
    body = {"code": error.status_code, "type": "RequestError", "message": error.detail}
    return JSONResponse(body, error.status_code, error.headers)
