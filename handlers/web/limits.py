"""What a connection may take: time for headers, body and reading the answer, and a place among the others.

uvicorn limits the size of headers, keep-alive and shutdown, but waits for ever for the headers of a new connection and
counts idle connections as load. This adds to its protocol what is missing. A chunk of one byte costs as much as one of
64 KiB, also where the answer was sent without reading the body, so chunks are counted where they are parsed.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True)
class WebLimits:
    """Limits of the web front end.

    Attributes:
        max_connections: at once. The connection that waits longest without a request makes room for a new one.
        head_s: from connecting, or the last answer, to the end of the request's headers.
        body_s: from the headers to the end of the body.
        read_s: that a client may leave an answer unread.
        stop_s: for requests that are being answered when the server is stopped.
        max_head: bytes of a request's line and headers.
        max_chunks: of a body that comes in chunks; parsing that many takes a tenth of a second.
        max_bytes_in_flight: bodies of all requests together that are being received or answered.
        max_waiting: requests that wait for a forward pass.
    """

    max_connections: int = 512
    head_s: float = 10
    body_s: float = 30
    read_s: float = 30
    stop_s: float = 5
    max_head: int = 2**14
    max_chunks: int = 2**14
    max_bytes_in_flight: int = 128 * 2**20
    max_waiting: int = 256

    def fitted(self) -> WebLimits:
        """With no more connections than files that this process may open; the rest is for the model and the log."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return replace(self, max_connections=max(1, min(self.max_connections, files - 64)))


class _CountedChunks(h11.Connection):
    """h11's parser, which knows how many chunks the present body has had."""

    chunks = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.chunks = 0
        elif isinstance(event, h11.Data):
            self.chunks += event.chunk_start
        return event


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol for a connection that is closed when it takes too long.

    Attributes:
        limits: see ``WebLimits``.
        waiting: connections without a request, the longest waiting first.
    """

    limits: ClassVar[WebLimits] = WebLimits().fitted()
    waiting: ClassVar[dict[BoundedProtocol, None]] = {}
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn: _CountedChunks = _CountedChunks(h11.SERVER, self.limits.max_head)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.chunks > self.limits.max_chunks:
            self.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.limits.max_connections:
            next(iter(self.waiting)).abort()  # this one, where all others are being answered

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:  # the headers are complete
            self._stop_waiting()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_timer(self.limits.read_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self not in self.waiting:
            self._set_timer(None)

    def abort(self) -> None:
        """Close without a word."""
        self._stop_waiting()
        self.transport.abort()

    def _wait(self) -> None:
        self.waiting[self] = None
        self._set_timer(self.limits.head_s)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        self._set_timer(None)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.abort)


def bounded_protocol(limits: WebLimits) -> type[BoundedProtocol]:
    """The protocol with other limits than the defaults."""
    return type("LimitedProtocol", (BoundedProtocol,), {"limits": limits.fitted(), "waiting": {}})
