"""What the explorer's tests share: the explorer as a process, and an application on a port of its own."""

from __future__ import annotations

import json
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp

from elude.handlers.bundle.catalogue import ConceptPortrait, ConceptRow, Top
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service

ROOT = Path(__file__).parent.parent
CONCEPTS = (
    ConceptRow(0, "many parts", 0.9, 0.75, tuple(range(60))),
    ConceptRow(1, None, 0.8, None, (61, 60)),
)
_NAMED = [
    ConceptRow(number, name, 0.9, 0.8, tuple(range(20 * number, 20 * number + 20)))
    for number, name in enumerate(("laces", "heel", "collar", "sleeve", "strap", "sole"))
]
PORTRAYED = tuple(_NAMED)
PORTRAITS = tuple(
    ConceptPortrait(row.number, (0.0, 0.1 * row.number), (1, 5, 4), (((row.number + 1) % 6, 0.5),), (Top(0, 1, 0.9),))
    for row in _NAMED
)


@contextmanager
def exploring(target: str | Path, *options: str, **environment: str) -> Iterator[str]:
    """``elude explore`` of a bundle or an address until the block ends; gives the page's address."""
    command = [sys.executable, "-m", "elude", "explore", str(target), "--port", "0", *options]
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


@dataclass
class Visit:
    """One open page, and what it must never do: complain on the console, or ask another host."""

    page: Any
    address: str
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, fragment: str = "") -> None:
        self.page.goto(self.address + fragment)
        self.page.wait_for_selector("#examples button")
        self.page.wait_for_selector(
            "#prediction tbody tr"
        )  # the page begins with an example: its first question may not be asked yet
        self.settle()

    def settle(self) -> None:
        """Waits until no answer is awaited."""
        self.page.wait_for_selector("html:not([data-waiting])", state="attached")

    def says(self, selector: str, words: str) -> None:
        """Waits until an element holds the words."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_contain_text(words, timeout=15_000)

    def choose(self, name: str, data: bytes) -> None:
        """Gives the page a file of the reader's, and waits for its answer."""
        self.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})
        self.says("#caption", name)
        self.settle()

    def shown(self, kind: str) -> dict[str, float]:
        """Probabilities as the page shows them: the exact values behind the rounded text."""
        found = self.page.eval_on_selector_all(
            "#prediction tbody tr", f"rows => rows.map(r => [r.dataset.label, r.querySelector('data.{kind}').value])"
        )
        return {label: float(value) for label, value in found}

    def steer(self, row: int, value: float) -> str:
        """Steers the sub-unit of a row of the list; gives its identifier."""
        entry = self.page.locator(f"#parts li >> nth={row}")
        identifier = entry.get_attribute("data-id")
        entry.get_by_role("button", name="Steer").click()
        self.page.locator(f'#edits li[data-id="{identifier}"] input[type=range]').fill(str(value))
        return str(identifier)

    def edited(self, *texts: str) -> None:
        """Waits for the answer to exactly these edits."""
        self.page.wait_for_selector(f'#prediction[data-edits="{" ".join(texts)}"]')


@contextmanager
def visiting(browser: Any, address: str) -> Iterator[Visit]:
    """A page that complains of nothing and asks no other host."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(15_000)
    visit = Visit(page, address)
    page.on(
        "console",
        lambda message: visit.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on(
        "request",
        lambda request: visit.hosts.add(urlsplit(request.url).netloc) if request.url.startswith("http") else None,
    )
    yield visit
    page.close()
    assert visit.complaints == []
    assert visit.hosts <= {urlsplit(address).netloc}


def asked(service: Service, op: str, **fields: Any) -> Any:
    answer = service.answer([Call({"op": op, **fields})])[0]
    assert answer.status == 200, answer.body
    return json.loads(answer.body)
