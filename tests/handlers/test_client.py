"""The client tries again after what is no fault of the request, and only then."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from elude.handlers.errors import RequestError, UsageError
from elude.handlers.torchserve.client import Client, ServerError

GOOD = (200, {"label": 1.0})


@pytest.fixture
def script() -> Iterator[tuple[str, list[tuple[int, object]], list[str | None]]]:
    """A server that gives the answers of a list one after the other (status 0: none), and notes the keys it was
    sent.
    """
    answers: list[tuple[int, object]] = []
    keys: list[str | None] = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers["Authorization"])
            status, body = answers.pop(0)
            if status == 0:
                over.wait(30)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args: object) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, keys
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "failed",
    [
        (413, {"message": "Worker died."}),
        (500, {"message": "Worker died."}),
        (503, {"message": "no worker"}),
        (0, None),
    ],
)
def test_a_dead_worker_or_a_lost_request_is_asked_again(
    script: tuple[str, list, list], failed: tuple[int, object]
) -> None:
    url, answers, _ = script
    answers += [failed, failed, GOOD]
    assert Client(url, timeout=1).predict(b"x") == GOOD[1]
    assert answers == []


def test_a_refusal_is_not_asked_again(script: tuple[str, list, list]) -> None:
    url, answers, _ = script
    answers += [(413, {"message": "The image has 9 bytes; at most 3 are allowed."}), GOOD]
    with pytest.raises(RequestError, match="at most 3") as caught:
        Client(url).predict(b"x")
    assert caught.value.status == 413
    assert answers == [GOOD]


def test_it_gives_up(script: tuple[str, list, list]) -> None:
    url, answers, _ = script
    answers += [(500, {"message": "Worker died."})] * 3
    with pytest.raises(ServerError, match=r"Worker died"):
        Client(url, retries=1).predict(b"x")
    assert len(answers) == 1
    answers[:] = [(0, None)]
    with pytest.raises(UsageError, match="No answer from"):
        Client(url, timeout=0.2, retries=0).predict(b"x")


def test_the_current_key_is_asked_for_each_attempt(script: tuple[str, list, list]) -> None:
    url, answers, keys = script
    answers += [(500, {"message": "x"}), GOOD]
    current = iter(["old", "new"])
    Client(url, lambda: next(current)).predict(b"x")
    assert keys == ["Bearer old", "Bearer new"]


def test_no_server_is_told_at_once() -> None:
    begin = time.monotonic()
    with pytest.raises(UsageError, match="Is the server running"):
        Client("http://127.0.0.1:9", retries=7).predict(b"x")
    assert time.monotonic() - begin < 10  # eight attempts with their waits take 25 seconds
