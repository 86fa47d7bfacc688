"""The web front end against clients that are slow, many or gone: others are answered, and it stops when told to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from _worked import PICTURE, WorkedSession, make_bundle

from elude.handlers.service import Service
from elude.handlers.web.app import application
from elude.handlers.web.limits import WebLimits, bounded_protocol

LIMITS = WebLimits(max_connections=20, head_s=0.5, body_s=0.5, read_s=0.5, stop_s=1, max_bytes_in_flight=200_000)
PATIENT = replace(LIMITS, head_s=60, body_s=60, read_s=60, stop_s=30)
POST = b"POST /predictions/elude HTTP/1.1\r\nHost: x\r\n"


class Held(WorkedSession):
    """A model that can be made to wait.

    Attributes:
        asked: set when a forward pass begins.
        free: a forward pass ends when this is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.free = threading.Event(), threading.Event()
        self.free.set()

    def run(self, *arguments: object, **named: object) -> object:
        self.asked.set()
        assert self.free.wait(30)
        return super().run(*arguments, **named)  # type: ignore[arg-type]


class Running:
    """The front end on a thread of its own."""

    def __init__(self, folder: Path, limits: WebLimits = LIMITS) -> None:
        self.session = Held()
        app = application(Service(make_bundle(folder / "b"), self.session), None, limits=limits)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        options = {"log_level": "error", "http": bounded_protocol(limits), "timeout_graceful_shutdown": limits.stop_s}
        self.server = uvicorn.Server(uvicorn.Config(app, **options))  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def open(self, content: bytes = b"") -> socket.socket:
        """A connection on which ``content`` was sent."""
        connection = socket.create_connection(self.address, timeout=10)
        connection.sendall(content)
        return connection

    def ask(self, path: str = "/v2/health/live", body: bytes | None = None) -> int:
        """Status."""
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        content = f"{head}Content-Length: {len(body or b'')}\r\n\r\n".encode() + (body or b"")
        with contextlib.closing(self.open(content)) as connection:
            answer = received(connection)
        return int(answer.split(b" ", 2)[1])

    def stop(self) -> float:
        """Stop as SIGTERM does; the seconds that it took."""
        begin = time.perf_counter()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()
        return time.perf_counter() - begin


def until(true: Callable[[], bool]) -> None:
    """Wait for it, on a slow machine too."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes; empty if it closes without a word."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(65_536):
            content += block
    return content


@contextlib.contextmanager
def started(folder: Path, limits: WebLimits) -> Iterator[Running]:
    front = Running(folder, limits)
    yield front
    front.session.free.set()
    if front.thread.is_alive():
        front.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with started(tmp_path, LIMITS) as front:
        yield front


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Running]:
    """One that closes nothing for being slow."""
    with started(tmp_path, PATIENT) as front:
        yield front


def test_idle_connections_shut_nobody_out(patient: Running) -> None:
    idle = [patient.open() for _ in range(60)]
    assert patient.ask(body=PICTURE, path="/predictions/elude") == 200  # long before the idle ones time out
    assert len(patient.server.server_state.connections) <= LIMITS.max_connections  # those of a process have an end
    for connection in idle:
        connection.close()


def test_slow_headers_are_closed(running: Running) -> None:
    def closed() -> bool:
        with contextlib.suppress(OSError):
            connection.sendall(b"X: y\r\n")
        return running.server.server_state.connections == set()

    with contextlib.closing(running.open(b"POST /predictions/elude HTTP/1.1\r\n")) as connection:
        until(lambda: len(running.server.server_state.connections) == 1)
        until(closed)
        assert received(connection) == b""


@pytest.mark.parametrize("head", [POST, b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"])
def test_a_body_of_countless_chunks_is_not_parsed_to_its_end(tmp_path: Path, head: bytes) -> None:
    """Each costs as much as one of 64 KiB, on the thread that answers everybody; the second needs no key."""
    running, begin = Running(tmp_path, PATIENT), time.monotonic()
    connection = running.open(head + b"Transfer-Encoding: chunked\r\n\r\n")
    with contextlib.closing(connection), contextlib.suppress(ConnectionError):
        while True:
            connection.sendall(b"1\r\nx\r\n" * 10_000)
    seconds = time.monotonic() - begin
    assert running.ask() == 200
    running.stop()
    assert seconds < PATIENT.body_s / 2  # not until its time is over


def test_a_body_in_ordinary_chunks_is_answered(running: Running) -> None:
    blocks = [PICTURE[i : i + 64] for i in range(0, len(PICTURE), 64)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + b"0\r\n\r\n"
    head = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.closing(running.open(head + body)) as connection:
        assert b" 200 " in received(connection)


def test_a_slow_body_is_answered_408(running: Running) -> None:
    with contextlib.closing(running.open(POST + b"Content-Length: 1000\r\n\r\nxx")) as connection:
        answer = received(connection)
    assert b" 408 " in answer
    assert b"connection: close" in answer.lower()


def test_a_connection_that_waits_after_its_answer_is_closed(running: Running) -> None:
    with contextlib.closing(running.open(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")) as connection:
        assert b" 200 " in received(connection)


def test_bodies_that_are_too_large_together_are_refused(patient: Running) -> None:
    large = b"x" * 120_000  # not an image: 400 as long as there is room for it
    with contextlib.closing(patient.open(POST + b"Content-Length: 150000\r\n\r\n" + large)):
        until(lambda: patient.ask("/predictions/elude", large) == 503)
    until(lambda: patient.ask("/predictions/elude", large) == 400)  # what it held is free again
    assert patient.ask("/predictions/elude", PICTURE) == 200


def test_health_answers_while_the_model_works(patient: Running) -> None:
    patient.session.free.clear()
    busy = threading.Thread(target=patient.ask, args=("/predictions/elude", PICTURE))
    busy.start()
    assert patient.session.asked.wait(30)
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/v1/models/elude", "/metrics"):
        assert patient.ask(path) == 200, path
    patient.session.free.set()
    busy.join()


def test_pings_do_not_delay_a_prediction(running: Running) -> None:
    """Each read the bundle's files again, on the prediction's threads: twelve took 13 seconds."""
    running.ask("/predictions/elude", PICTURE)
    pings = [threading.Thread(target=running.ask, args=("/ping",)) for _ in range(12)]
    for ping in pings:
        ping.start()
    begin = time.monotonic()
    assert running.ask("/predictions/elude", PICTURE) == 200
    assert time.monotonic() - begin < 5
    for ping in pings:
        ping.join()


def test_who_leaves_is_forgotten_without_a_word(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.session.free.clear()
    for content in (
        POST + b"Content-Length: 1000\r\n\r\nxx",
        POST + f"Content-Length: {len(PICTURE)}\r\n\r\n".encode() + PICTURE,
    ):
        running.open(content).close()
    assert running.session.asked.wait(30)
    until(lambda: running.server.server_state.connections == set())
    running.session.free.set()
    assert running.ask("/predictions/elude", PICTURE) == 200
    assert "Traceback" not in caplog.text


def test_it_stops_within_seconds_whoever_is_slow(running: Running) -> None:
    slow = [running.open(), running.open(POST), running.open(POST + b"Content-Length: 1000\r\n\r\nxx")]
    until(lambda: len(running.server.server_state.connections) == len(slow))
    assert running.stop() < 15  # its connections would keep it for ever
    for connection in slow:
        connection.close()


def test_what_is_being_answered_is_answered_before_it_stops(patient: Running) -> None:
    patient.session.free.clear()
    statuses: list[int] = []
    busy = threading.Thread(target=lambda: statuses.append(patient.ask("/predictions/elude", PICTURE)))
    busy.start()
    assert patient.session.asked.wait(30)
    patient.server.should_exit = True
    until(lambda: patient.listener.fileno() == -1)  # it has stopped listening
    patient.session.free.set()
    patient.stop()
    busy.join()
    assert statuses == [200]


def test_a_changed_file_turns_it_unready_and_its_return_ready_again(tmp_path: Path) -> None:
    running = Running(tmp_path)
    labels = tmp_path / "b" / "labels.json"
    content = labels.read_bytes()
    labels.write_text("[]")
    assert running.ask("/v2/health/ready") == 503
    labels.write_bytes(content)
    until(lambda: running.ask("/v2/health/ready") == 200)
    running.stop()


def test_refusals_have_one_form(running: Running) -> None:
    with contextlib.closing(
        running.open(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    ) as connection:
        answer = received(connection)
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["code"] == 404
