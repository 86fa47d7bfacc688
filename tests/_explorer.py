"""What the explorer's tests share: the explorer as a process, and an application on a port of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from elude.handlers.bundle.catalogue import ConceptRow

ROOT = Path(__file__).parent.parent
CONCEPTS = (
    ConceptRow(0, "many parts", 0.9, 0.75, tuple(range(60))),
    ConceptRow(1, None, 0.8, None, (61, 60)),
)


@contextmanager
def exploring(target: str | Path, **environment: str) -> Iterator[str]:
    """``elude explore`` of a bundle or an address until the block ends; gives the page's address."""
    command = [sys.executable, "-m", "elude", "explore", str(target), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        try:
            line = running.stdout.readline()
            found = re.search(r"at (http://\S+)", line)
            assert found, f"elude explore said: {line}"
            yield found[1]
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=30)


def listen() -> tuple[socket.socket, int]:
    """A socket on a free port of loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening, listening.getsockname()[1]


@contextmanager
def running(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """An application in a thread of its own until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        assert server.started, "the application does not listen after 20 s"
        yield
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()
