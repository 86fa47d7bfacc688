"""Addresses that name models, versions and labels oddly, and hostile bodies by every route that takes one: each is
refused with a message, and the next request is answered.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from _hostile import KINDS
from _stores import make
from _worked import PICTURE
from starlette.testclient import TestClient

from elude.handlers.admission.requirements import Requirements
from elude.handlers.requests.routes import ROUTES, WEB
from elude.handlers.web.app import application
from elude.handlers.web.limits import WebLimits, bounded_protocol
from elude.handlers.web.models import Models
from elude.handlers.web.sources import plan_of

ODD = (
    "..",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "%00",
    "1.0%00",
    "1.0%0d%0aX-Evil:%20yes",
    "1.0%0a",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "%zz",
    "%",
    "1.0;2.0",
    "1.0,2.0",
    "1.0:explain",
    ":predict",
    "+1.0",
    "1%2e0%20",
    "%31%2E%30%2F",
    "1e400",
    "-1",
    "9" * 5000,
    "%F0%9F%92%A9" * 500,
    "{version}",
    "$(id)",
    "'%20OR%201=1--",
    "<script>alert(1)</script>",
    "__class__",
    "*",
)
PLACES = (
    "/predictions/{odd}",
    "/predictions/m/{odd}",
    "/explanations/m/{odd}",
    "/v1/models/{odd}:predict",
    "/v1/models/m/versions/{odd}:predict",
    "/v1/models/m/versions/{odd}:explain",
    "/v1/models/m/labels/{odd}:predict",
    "/v1/models/m/labels/{odd}:explain",
    "/v2/models/{odd}/infer",
    "/v2/models/m/versions/{odd}/infer",
    "/v2/models/m/versions/{odd}/explain",
)
LINES = (
    "POST http://elsewhere/predictions/m",
    "POST //predictions/m",
    "POST /predictions/m/",
    "POST /predictions//1.0",
    "POST /v1/models/m/versions/:predict",
    "POST /v1/models/m/labels/stable/versions/1.0:predict",
    "POST /v1/models/m/versions/1.0/labels/stable:predict",
    "POST /v2/models/m/versions//infer",
    "POST *",
    "POST predictions/m",
    "GET /predictions/m",
    "GET /v1/models/m/versions/%00",
    "GET /v1/models/m/labels/%2e%2e",
    "GET /v2/models/m/versions/9/ready",
    "GET /models/m/%0d%0a",
    "DELETE /v1/models/m/versions/1.0",
    "PUT /v1/models/m/labels/stable",
    "POST /v2/repository/models/m/load",
    "POST /" + "x" * 20_000,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("addresses")
    words = [f"m@{version}={make(folder / version, content=version.encode()).root}" for version in ("1.0", "2.0")]
    return Models.load(plan_of(words, folder, Requirements(), labels=["m/stable=1.0"]))


@pytest.fixture(scope="module")
def address(models: Models) -> Iterator[tuple[str, int]]:
    """A server as it is in use, as a client library would tidy up what it is asked for."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = application(models, None)
    config = uvicorn.Config(
        app, http=bounded_protocol(WebLimits()), log_level="error", h11_max_incomplete_event_size=2**14
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()
    server.should_exit = True
    thread.join(20)


def ask(address: tuple[str, int], line: str) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer to a request line that is sent as it stands."""
    with socket.create_connection(address, timeout=20) as connection:
        head = f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(PICTURE)}\r\n\r\n"
        connection.sendall(head.encode() + PICTURE)
        content = b""
        while block := connection.recv(65_536):
            content += block
    head_bytes, _, body = content.partition(b"\r\n\r\n")
    return int(head_bytes.split(b" ", 2)[1]), head_bytes, body


@pytest.mark.parametrize("place", PLACES)
def test_an_odd_name_is_refused_with_a_short_message(address: tuple[str, int], place: str) -> None:
    for odd in ODD:
        status, head, body = ask(address, f"POST {place.format(odd=odd)}")
        assert 400 <= status < 500, (odd, status, body[:200])
        assert b"X-Evil" not in head
        assert len(body) < 500, odd
        assert json.loads(body)["message"], odd
    assert ask(address, "POST /v1/models/m/labels/stable:predict")[0] == 200


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:60])
def test_an_odd_request_line_is_refused(address: tuple[str, int], line: str) -> None:
    status, _, body = ask(address, line)
    assert 400 <= status < 500, (status, body[:200])
    assert b"Traceback" not in body
    assert ask(address, "POST /predictions/m/2.0")[0] == 200


@pytest.mark.slow
def test_hostile_bodies_are_refused_alike_by_every_route(models: Models) -> None:
    routes = [route for route in ROUTES if WEB in route.fronts and route.asks in ("ask", "explain")]
    paths = [r.path.format(model="m", version="2.0", label="stable") for r in routes]
    assert len(paths) == 14
    bodies = [data for kind in KINDS.values() for _, data in kind() if len(data) < 20_000]
    assert len(bodies) > 20
    client = TestClient(application(models, None))  # not entered: leaving it would close the models
    for body in bodies:
        statuses = {path: client.post(path, content=body).status_code for path in paths}
        assert len(set(statuses.values())) == 1, statuses
        assert set(statuses.values()) <= {200, 400, 413}
