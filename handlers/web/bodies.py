"""Bodies of requests, received within limits of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from elude.handlers.requests.calls import Call
from elude.handlers.web.limits import WebLimits

_CLOSE = {"connection": "close"}  # the rest of the body is not read
_MAX_FIELDS = 40


class Bodies:
    """Receives bodies for one server.

    Args:
        limits: see ``WebLimits``.
        most: bytes of one body.
    """

    def __init__(self, limits: WebLimits, most: int) -> None:
        self._limits, self._most = limits, most
        self.in_flight = 0  # bytes that are being received or answered

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, counted until the caller is done with it.

        Raises:
            HTTPException: 413 for a body that is too large, 408 for one that takes too long, 503 if too much is being
                received already.
            ClientDisconnect: the client has gone.
        """
        received = bytearray()
        length = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for block in request.stream():
                    length += len(block)
                    self.in_flight += len(block)
                    self._require_room(length)
                    received += block
            body = bytes(received)
            received.clear()
            yield body
        except TimeoutError as error:
            raise HTTPException(
                408, f"The request took longer than {self._limits.body_s} s to arrive.", _CLOSE
            ) from error
        finally:
            self.in_flight -= length

    def _require_room(self, length: int) -> None:
        if length > self._most:
            raise HTTPException(413, f"The request has more than the {self._most} bytes that are allowed.", _CLOSE)
        if self.in_flight > self._limits.max_bytes_in_flight:
            raise HTTPException(503, "Too much is being received. Ask again in a moment.", _CLOSE)


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request; HTTPException 413 as soon as more than ``most`` bytes came."""
    async with Bodies(WebLimits(), most).receive(request) as body:
        return body


async def read_call(request: Request, body: bytes, explain: bool) -> Call:
    """The call that a body makes: a form's fields, or the body itself whatever its content type says."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return Call(body, explain=explain)

    async def blocks() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(
            request.headers, blocks(), max_files=_MAX_FIELDS, max_fields=_MAX_FIELDS, max_part_size=len(body) + 1
        )
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise HTTPException(400, f"The form cannot be read: {error}.") from error
    fields: dict[str, bytes | str] = {}
    for name, value in form.multi_items():
        if name in fields:
            raise HTTPException(400, f"The form has two fields {name[:60]!r}. Send each in a request of its own.")
        fields[name] = value if isinstance(value, str) else await value.read()
    await form.close()
    return Call(None, explain=explain, form=fields)
