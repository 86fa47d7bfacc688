"""The explorer's web application: the page, the operations behind it, and what keeps other sites away from both.

A page of another site must neither read answers nor spend the key: requests must name this address as host
(a foreign name that resolves to loopback is refused) and must not come from another origin, and the page
itself may load and ask nothing but its own address.
"""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elude.handlers.errors import ImageError, UsageError
from elude.handlers.explorer.backends import Backend, examples, refusal
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import picture, pixel_readers
from elude.handlers.settings import Limits, Settings
from elude.handlers.web.bodies import read_body

PAGE = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'"
HEADERS = {
    "content-security-policy": f"{_POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def application(backend: Backend, hosts: Iterable[str], beside: Backend | None = None) -> ASGIApp:
    """The web application.

    Args:
        backend: answers the page's requests.
        hosts: ``Host`` headers that are answered, with port, e.g. ``127.0.0.1:8765``.
        beside: answers the same images in a second column, under ``/beside``.
    """
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in _KINDS}
    names = [side.name for side in (backend, beside) if side is not None]
    shown: list[JSONResponse] = []

    async def page(request: Request) -> Response:
        name = request.path_params.get("file", "index.html")
        if name not in files:
            raise HTTPException(404, f"There is no {name[:100]}.")
        return Response(files[name], media_type=_KINDS[Path(name).suffix])

    async def sides(request: Request) -> Response:
        return JSONResponse(names)

    async def some(request: Request) -> Response:
        if not shown:
            shown.append(JSONResponse(await examples(backend)))
        return shown[0]

    def refuse(request: Request, error: HTTPException) -> Response:
        return Response(refusal(error.detail, error.status_code), error.status_code, media_type="application/json")

    routes: list[Route | Mount] = [Route("/", page), Route("/examples", some), Route("/sides", sides)]
    routes += [*_questions(backend), Route("/{file}", page)]
    if beside is not None:
        routes.append(Mount("/beside", routes=_questions(beside)))
    handlers = {HTTPException: refuse}
    return _Guard(Starlette(routes=routes, exception_handlers=handlers), frozenset(hosts))  # type: ignore[arg-type]


def _questions(backend: Backend) -> list[Route]:
    """What the page asks of one model: its operations, and what it sees of an image."""
    preprocess, limits = Preprocess.from_json(backend.facts["preprocess"]), Limits.from_json(backend.facts["limits"])
    most = 2 * limits.max_bytes + 2**16

    async def ask(request: Request) -> Response:
        status, body = await backend.ask(await read_body(request, most))
        return Response(body, status, media_type="application/json")

    async def view(request: Request) -> Response:
        data = await read_body(request, most)
        try:
            return Response(await asyncio.to_thread(seen, data), media_type="image/png")
        except ImageError as error:
            raise HTTPException(400, str(error)) from error

    def seen(data: bytes) -> bytes:
        """What the model sees of an image, as PNG: heat maps lie over this, not over the whole image."""
        buffer = io.BytesIO()
        (read,) = pixel_readers([("The image", data)], preprocess, Settings(limits).image_limits)
        picture(read()).save(buffer, "PNG")
        return buffer.getvalue()

    return [Route("/ask", ask, methods=["POST"]), Route("/view", view, methods=["POST"])]


class _Guard:
    """Refuses what does not come from the page itself, and sets the headers that bind the page to its own address."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif wrong := self._wrong(Request(scope)):
            await Response(refusal(wrong, 403), 403, media_type="application/json")(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _wrong(self, request: Request) -> str:
        host = request.headers.get("host", "")
        if host not in self._hosts:
            return f"This address is not called {host[:100]!r}. Open it as one of {', '.join(sorted(self._hosts))}."
        if request.headers.get("origin", f"http://{host}") != f"http://{host}":
            return "Requests from other sites are refused."
        if request.method == "POST" and request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "Requests from other sites are refused."
        return ""


def explore(
    backend: Backend, host: str, port: int, ready: Callable[[str], None], beside: Backend | None = None
) -> None:
    """Serve the explorer until Ctrl-C.

    Args:
        backend: answers the page's requests.
        host: address to listen on, which is also the name that browsers must use; loopback's other names are taken too.
        port: 0 for any free one.
        ready: called with the page's address once it can be opened.
        beside: a second model, whose answers stand in a second column.

    Raises:
        UsageError: the address is taken or not this machine's, or stands for all addresses.
    """
    if host in ("0.0.0.0", "::", ""):
        raise UsageError(f"The explorer cannot listen on {host!r}.", "Name the one address that browsers use.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # inherited; asyncio does not see that it is TCP
        try:
            listening.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"The explorer cannot listen on {host}:{port}: {error.strerror}.", "Choose another --port."
            ) from error
        taken = listening.getsockname()[1]
        name = f"[{host}]" if family == socket.AF_INET6 else host
        hosts = {f"{other}:{taken}" for other in (name, *(("localhost",) if host in ("127.0.0.1", "::1") else ()))}
        app = application(backend, hosts, beside)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
        listening.listen(128)
        ready(f"http://{name}:{taken}/")
        uvicorn.Server(config).run(sockets=[listening])
