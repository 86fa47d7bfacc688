"""The explorer's web application without a browser: what it answers, whom it refuses, and that the key stays behind
it.
"""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _explorer import listen, running
from _worked import PICTURE, PIXELS, TEXT, WorkedSession, make_bundle, with_presets
from PIL import Image

from elude.handlers.errors import RequestError, UsageError
from elude.handlers.explorer.app import PAGE, application, explore
from elude.handlers.explorer.backends import Backend, Own, Remote
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.handlers.torchserve.client import Client
from elude.handlers.web.app import application as web_application

KEY = "the key of the tests"


class Explorer:
    """Asks one explorer over HTTP, as a browser or as something else."""

    def __init__(self, port: int) -> None:
        self.port, self.host = port, f"127.0.0.1:{port}"

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        given = {"host": self.host} | {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in (given | {"content-length": str(len(body or b""))}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return found

    def ask(self, **fields: Any) -> tuple[int, Any]:
        status, body, _ = self.send("POST", "/ask", json.dumps(fields).encode())
        return status, json.loads(body)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service(make_bundle(tmp_path_factory.mktemp("explored") / "b"), WorkedSession())


@pytest.fixture(scope="module", params=["bundle", "server"])
def explorer(request: pytest.FixtureRequest, service: Service) -> Iterator[Explorer]:
    listening, port = listen()
    hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
    if request.param == "bundle":
        with running(application(Own(service), hosts), listening):
            yield Explorer(port)
        return
    behind, behind_port = listen()
    with running(web_application(service, KEY), behind):
        backend: Backend = Remote(Client(f"http://127.0.0.1:{behind_port}", KEY))
        with running(application(backend, hosts), listening):
            yield Explorer(port)


def test_operations_answer_as_the_service_does(explorer: Explorer, service: Service) -> None:
    edits = [{"id": "fc/u0.s0", "action": "ablate"}]
    for fields in (
        {"op": "describe"},
        {"op": "predict", "image": TEXT},
        {"op": "inspect", "image": TEXT, "unit": "fc/u1"},
        {"op": "steer", "image": TEXT, "edits": edits},
        {"op": "feature", "id": "fc/u1.s0"},
        {"op": "search", "query": "thing"},
        {"op": "fly"},
        {"op": "steer", "image": TEXT, "edits": [{"id": "fc/u9.s0", "action": "ablate"}]},
    ):
        expected = service.answer([Call(fields)])[0]
        status, answer = explorer.ask(**fields)
        assert status == expected.status
        assert (
            answer["message"] == json.loads(expected.body)["message"]
            if status >= 400
            else answer == json.loads(expected.body)
        )


def test_the_view_is_what_the_model_sees(explorer: Explorer) -> None:
    status, body, headers = explorer.send("POST", "/view", PICTURE)
    assert (status, headers["content-type"]) == (200, "image/png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), np.array(PIXELS))


@pytest.mark.parametrize("body", [b"", b"\x89PNG\r\n\x1a\n broken", PICTURE[:45]], ids=["empty", "broken", "cut"])
def test_a_broken_image_is_refused_with_its_reason(explorer: Explorer, body: bytes) -> None:
    status, answer, _ = explorer.send("POST", "/view", body)
    assert status == 400
    assert json.loads(answer)["message"].startswith("The image ")


def test_too_large_a_body_is_refused(explorer: Explorer) -> None:
    most = 2 * 6 * 2**20 + 2**16
    connection = http.client.HTTPConnection("127.0.0.1", explorer.port, timeout=20)
    try:
        connection.request("POST", "/view", b"x" * (most + 1), {"host": explorer.host})
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before it was sent in full
    finally:
        connection.close()


def test_examples_are_top_images(explorer: Explorer) -> None:
    status, body, _ = explorer.send("GET", "/examples")
    assert status == 200
    (example,) = json.loads(body)
    assert (example["image"], example["label"], example["from"]) == ("a.png", "black", "fc/u0.s0")


def test_each_file_of_the_page_is_served_and_loads_nothing_from_elsewhere(explorer: Explorer) -> None:
    for path in PAGE.iterdir():
        status, body, headers = explorer.send("GET", f"/{path.name}")
        assert status == 200
        assert body == path.read_bytes()
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
    assert explorer.send("GET", "/")[1] == (PAGE / "index.html").read_bytes()


@pytest.mark.parametrize("path", ["/app.py", "/../app.py", "/..%2fapp.py", "/page/../app.py", "/.."])
def test_nothing_else_is_served(explorer: Explorer, path: str) -> None:
    assert explorer.send("GET", path)[0] == 404


def test_a_foreign_name_for_this_address_is_refused(explorer: Explorer) -> None:
    for host in (
        f"evil.example:{explorer.port}",
        "127.0.0.1",
        "",
        f"127.0.0.1:{explorer.port + 1}",
        f"127.0.0.1:{explorer.port}.evil.example",
    ):
        for method, path in (("GET", "/"), ("GET", "/examples"), ("POST", "/ask")):
            status, _, headers = explorer.send(
                method, path, b'{"op": "describe"}' if method == "POST" else None, host=host
            )
            assert status in (400, 403)
            if status == 403:
                assert "content-security-policy" in headers
    assert explorer.send("GET", "/", host=f"localhost:{explorer.port}")[0] == 200


def test_another_site_is_refused(explorer: Explorer) -> None:
    body = b'{"op": "describe"}'
    assert explorer.send("POST", "/ask", body, origin="http://evil.example")[0] == 403
    assert explorer.send("POST", "/ask", body, origin="null")[0] == 403
    assert explorer.send("POST", "/ask", body, sec_fetch_site="cross-site")[0] == 403
    assert explorer.send("POST", "/ask", body, sec_fetch_site="same-site")[0] == 403
    assert explorer.send("POST", "/ask", body, origin=f"http://{explorer.host}", sec_fetch_site="same-origin")[0] == 200
    assert (
        explorer.send("OPTIONS", "/ask", origin="http://evil.example", access_control_request_method="POST")[0] == 403
    )


def test_the_key_never_leaves_the_explorer(service: Service) -> None:
    behind, behind_port = listen()
    listening, port = listen()
    with running(web_application(service, KEY), behind):
        client = Client(f"http://127.0.0.1:{behind_port}", KEY, retries=0)
        with running(application(Remote(client), [f"127.0.0.1:{port}"]), listening):
            explorer = Explorer(port)
            answers = [explorer.send("GET", f"/{path.name}") for path in PAGE.iterdir()]
            answers += [explorer.send("GET", "/examples"), explorer.send("POST", "/ask", b'{"op": "describe"}')]
            client._token = "a wrong key"
            refused = explorer.send("POST", "/ask", b'{"op": "describe"}')
            assert refused[0] == 401
    for _, body, headers in [*answers, refused]:
        assert KEY.encode() not in body
        assert "wrong key" not in body.decode(errors="replace").replace("missing or wrong", "")
        assert KEY not in str(headers)


def test_a_second_model_answers_beside_the_first_and_not_without_it(tmp_path: Path, service: Service) -> None:
    second = Service(with_presets(tmp_path / "b"), WorkedSession())
    listening, port = listen()
    app = application(Own(service, "first"), [f"127.0.0.1:{port}"], Own(second, "second"))
    asked = json.dumps({"op": "steer", "image": TEXT, "preset": "no red", "compare": False}).encode()
    with running(app, listening):
        explorer = Explorer(port)
        assert json.loads(explorer.send("GET", "/sides")[1]) == ["first", "second"]
        assert explorer.send("POST", "/ask", asked)[0] == 404
        status, body, headers = explorer.send("POST", "/beside/ask", asked)
        assert (status, json.loads(body)) == (200, json.loads(second.answer([Call(json.loads(asked))])[0].body))
        assert "content-security-policy" in headers
        assert explorer.send("POST", "/beside/view", PICTURE)[:2] == explorer.send("POST", "/view", PICTURE)[:2]
        assert explorer.send("POST", "/beside/view", b"broken")[0] == 400
        assert explorer.send("POST", "/beside/ask", asked, origin="http://evil.example")[0] == 403


def test_one_model_has_nothing_beside_it(explorer: Explorer) -> None:
    assert len(json.loads(explorer.send("GET", "/sides")[1])) == 1
    assert explorer.send("POST", "/beside/ask", b'{"op": "describe"}')[0] == 404


def test_a_server_that_went_away_is_told(service: Service) -> None:
    behind, behind_port = listen()
    with running(web_application(service, None), behind):
        backend = Remote(Client(f"http://127.0.0.1:{behind_port}", retries=0))
    listening, port = listen()
    with running(application(backend, [f"127.0.0.1:{port}"]), listening):
        status, answer = Explorer(port).ask(op="describe")
        assert status == 502
        assert "Is the server running?" in answer["message"]


def test_a_wrong_key_or_no_server_ends_the_start(service: Service) -> None:
    behind, behind_port = listen()
    with running(web_application(service, KEY), behind):
        with pytest.raises(RequestError, match="key is missing or wrong"):
            Remote(Client(f"http://127.0.0.1:{behind_port}", "no"))
        with pytest.raises(RequestError, match="Model not found"):
            Remote(Client(f"http://127.0.0.1:{behind_port}", KEY, model="other"))
    with pytest.raises(UsageError, match="Is the server running"):
        Remote(Client(f"http://127.0.0.1:{behind_port}", KEY, retries=0))


def test_where_it_cannot_listen(service: Service) -> None:
    listening, port = listen()
    listening.listen()
    with pytest.raises(UsageError, match="Choose another --port"):
        explore(Own(service), "127.0.0.1", port, print)
    with pytest.raises(UsageError, match="Name the one address"):
        explore(Own(service), "0.0.0.0", 0, print)
    listening.close()


def test_a_bundle_without_a_catalogue_has_no_examples(tmp_path: Path, service: Service) -> None:
    class Bare(Own):
        async def ask(self, body: bytes) -> tuple[int, bytes]:
            return (404, b'{"message": "none"}') if b'"feature"' in body else await super().ask(body)

    listening, port = listen()
    with running(application(Bare(service), [f"127.0.0.1:{port}"]), listening):
        status, body, _ = Explorer(port).send("GET", "/examples")
    assert (status, json.loads(body)) == (200, [])
