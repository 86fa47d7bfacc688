"""Connections, shared evenly among the worker processes that listen on one address.

Whichever process wakes first would take all connections that wait, and keep them: with two workers and eight callers,
one worker answered up to all of them. Here a process leaves a connection to another that has fewer, for a moment.
Their numbers lie in a file that all processes map; each writes its own place.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNTS = "ELUDE_CONNECTIONS"  # path of the file, for worker processes
_PATIENCE_S = 0.1  # then a process takes the connection all the same: another may hang
_PAUSE_S = 0.0005


class Counts:
    """Open connections of each process.

    Args:
        path: of the file that ``Counts.make`` made.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._values = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")  # process, connections, process, …
            self._place = next(place for place in range(0, len(self._values), 2) if not _alive(self._values[place]))
            self._values[self._place + 1] = 0
            self._values[self._place] = os.getpid()
            fcntl.flock(file, fcntl.LOCK_UN)  # the map keeps the file open, and so the lock

    @staticmethod
    def make(path: Path, workers: int) -> None:
        """A file for that many processes at once, and as many that are about to end."""
        path.write_bytes(bytes(2 * workers * 16))

    def add(self, number: int) -> None:
        """Note that connections of this process began or ended."""
        self._values[self._place + 1] += number

    def another_has_fewer(self) -> bool:
        """Whether a process that lives has fewer than this one."""
        own = self._values[self._place + 1]
        places = range(0, len(self._values), 2)
        fewer = (self._values[place] for place in places if self._values[place] and self._values[place + 1] < own)
        return any(map(_alive, fewer))


class FairListener(socket.socket):
    """A listening socket of one of several processes.

    Args:
        listener: taken over.
        counts: of all processes.
    """

    def __init__(self, listener: socket.socket, counts: Counts) -> None:
        super().__init__(fileno=listener.detach())
        self._counts, self._waits_since = counts, 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; BlockingIOError if there is none for this process just now."""
        if self._counts.another_has_fewer():
            now = time.monotonic()
            self._waits_since = self._waits_since or now
            if now < self._waits_since + _PATIENCE_S:
                time.sleep(_PAUSE_S)  # or this process would ask again at once
                raise BlockingIOError
        self._waits_since = 0.0
        accepted = super().accept()
        self._counts.add(1)
        return accepted


class SharingLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers take their share of the connections."""

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *where: Any, sock: socket.socket, **named: Any
    ) -> asyncio.Server:
        counts = Counts(Path(os.environ[COUNTS]))

        def counted() -> asyncio.Protocol:
            protocol = protocol_factory()
            lost = protocol.connection_lost

            def connection_lost(error: Exception | None) -> None:
                counts.add(-1)
                lost(error)

            protocol.connection_lost = connection_lost  # type: ignore[method-assign, assignment]
            return protocol

        return await super().create_server(counted, *where, sock=FairListener(sock, counts), **named)


def _alive(process: int) -> bool:
    if not process:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the number is another user's process by now
        return False
    return True
