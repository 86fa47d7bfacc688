"""One list of requests, each in a form that some client sends: both front ends give the same statuses and bodies."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from _fronts import MODEL, Web
from _request_list import IMAGE, PAGE, REQUESTS, document, same_body

from elude.handlers.requests.routes import ROUTES, TORCHSERVE
from elude.handlers.torchserve.server import Server

pytestmark = pytest.mark.server


def send(
    front: Server | Web, method: str, path: str, body: bytes | None, kind: str, key: bool = True
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", front.inference_port, timeout=30)
    headers = {"Authorization": f"Bearer {front.key('inference')}"} if key else {}
    try:
        connection.request(
            method, path.replace("/M", f"/{MODEL}"), body, headers | ({"Content-Type": kind} if kind else {})
        )
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    try:
        return response.status, json.loads(content)
    except ValueError:
        return response.status, content


@pytest.mark.parametrize("name", REQUESTS)
def test_both_front_ends_give_the_same_status_and_body(server: Server, web: Web, name: str) -> None:
    path, (body, kind), status = REQUESTS[name]
    (one, answer), (other, same) = send(server, "POST", path, body, kind), send(web, "POST", path, body, kind)
    assert (one, other) == (status, status), (answer, same)
    if same_body(name):
        assert answer == same


def test_the_documented_table_is_this_list() -> None:
    assert PAGE.read_text() == document(), "run: python tests/_request_list.py > docs/serving-requests.md"


def test_the_routes_of_the_table_are_answered(server: Server, web: Web) -> None:
    for route in ROUTES:
        path = route.path.replace("{model}", "M").replace("{version}", "1.0").replace("{label}", "stable")
        body = IMAGE if route.method == "POST" else None
        status, answer = send(web, route.method, path, body, "image/png", route.key)
        assert status == 200, (path, answer)
        if route.key:
            assert send(web, route.method, path, body, "image/png", key=False)[0] == 401, path
        status, answer = send(server, route.method, path, body, "image/png")
        assert (status == 200) == (TORCHSERVE in route.fronts), (path, status, answer)


def test_the_health_of_the_open_inference_protocol(web: Web) -> None:
    assert send(web, "GET", "/v2/health/live", None, "", key=False) == (200, {"live": True})
    assert send(web, "GET", "/v2/health/ready", None, "", key=False) == (200, {"ready": True})
    assert send(web, "GET", "/v2/models/M/ready", None, "") == (200, {"name": MODEL, "ready": True})
    _, metadata = send(web, "GET", "/v2/models/M", None, "")
    assert {tensor["name"] for tensor in metadata["inputs"]} == {"image"}
    assert metadata["versions"] == ["1.0"]
    assert send(web, "GET", "/v2/models/other", None, "")[0] == 404
