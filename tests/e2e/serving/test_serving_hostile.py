"""Both front ends under fire: what is wrong is refused at once with a message, and the workers live on."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket

import numpy as np
import pytest
from _fronts import MODEL, Web, ask_raw, cpu_seconds, memory, pids, workers
from _refused import encoded, refused
from _serving import images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from elude.handlers.service import Service
from elude.handlers.torchserve.server import Server

pytestmark = pytest.mark.server


def test_hostile_requests_are_refused_at_once_with_a_message(front: Server | Web, local: Service) -> None:
    before = set(pids(front))
    sizes, slowest, bodies = [], ("", 0.0), refused()
    for _ in range(3):
        for name, (body, kind) in bodies.items():
            begin = cpu_seconds(front)
            status, answer, _ = ask_raw(front, body, kind)
            seconds = cpu_seconds(front) - begin
            assert 400 <= status < 500, (name, status, answer[:300])
            message = json.loads(answer)["message"]
            assert 10 < len(message) < 600, (name, message)
            assert seconds < 1, (name, seconds)
            slowest = max(slowest, (name, seconds), key=lambda pair: pair[1])
        sizes.append(sum(memory(pid) for pid in before))
    print(
        f"workers' memory after each round of {len(bodies)}: {[round(size) for size in sizes]} MiB; slowest {slowest}"
    )
    assert set(pids(front)) == before
    assert sizes[-1] - sizes[0] < 60


@pytest.mark.parametrize("sent", ["", "Content-Length: 1000\r\n\r\n"])
def test_clients_that_drip_shut_nobody_out(front: Server | Web, sent: str) -> None:
    """Headers, or a body, letter by letter, from more clients than there are threads."""
    head = f"POST /predictions/{MODEL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {front.key('inference')}\r\n{sent}"
    with contextlib.ExitStack() as closing:
        clients = [
            closing.enter_context(socket.create_connection(("127.0.0.1", front.inference_port))) for _ in range(100)
        ]
        for client in clients:
            client.sendall(head.encode())
        for letter in b"X-A: bc":
            for client in clients:
                with contextlib.suppress(OSError):  # the server may have had enough
                    client.sendall(bytes([letter]))
            status, _, seconds = ask_raw(front, images(1)[0], "image/png")
            assert (status, seconds < 8) == (200, True)  # the server closes them after ten seconds


def test_unusual_but_valid_images_are_answered(front: Server | Web, local: Service) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = noise.transpose(Image.Transpose.ROTATE_90)  # shown turned by EXIF, it is ``noise`` again
    pictures = {
        "animated": encoded(noise, "GIF", save_all=True, append_images=[Image.new("RGB", noise.size)] * 30),
        "CMYK": encoded(noise.convert("CMYK"), "TIFF"),
        "16-bit": encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
        "alpha": encoded(noise.convert("RGBA"), "WEBP", lossless=True),
        "palette": encoded(noise.convert("P"), "PNG"),
        "bilevel": encoded(noise.convert("1"), "PNG"),
        "turned": encoded(turned, "PNG", exif=exif),
        "upright": encoded(noise, "PNG"),
        "one pixel": encoded(Image.new("L", (1, 1)), "PNG"),
    }
    answers = {}
    for name, picture in pictures.items():
        status, answers[name], _ = ask_raw(front, picture, "image/png")
        assert status == 200, name
    assert answers["turned"] == answers["upright"]


def test_headers_cannot_hurt_the_worker(server: Server) -> None:
    before = set(workers(server))
    connection = http.client.HTTPConnection("127.0.0.1", server.inference_port, timeout=10)
    odd = {
        "X-Odd": b"\xff\xfe",
        "explain": "True",
        "describe": "maybe",
        "X-Long": "x" * 4000,
        "Content-Type": "image/png",
    }
    headers = {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in odd.items()}
    connection.request(
        "POST", f"/predictions/{MODEL}", images(1)[0], headers | {"Authorization": f"Bearer {server.key('inference')}"}
    )
    response = connection.getresponse()
    assert response.status == 200
    assert len(json.loads(response.read())) == 5  # the route decides, not a header
    for path in ("/predictions/../fashion", "/predictions/none", "/predictions/fashion/9.9", "/..%2f..%2fetc/passwd"):
        connection.request("POST", path, images(1)[0], {"Authorization": f"Bearer {server.key('inference')}"})
        response = connection.getresponse()
        response.read()
        assert 400 <= response.status < 500
    assert set(workers(server)) == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
fields = st.sampled_from(
    ["op", "image", "edits", "top_k", "id", "query", "instances", "inputs", "preset", "by", "parameters"]
)
bodies = st.one_of(
    st.dictionaries(
        fields, values | st.sampled_from(["predict", "inspect", "steer", "search", "feature"]), max_size=5
    ).map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=300),
    st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)).map(
        lambda cut: images(1)[0][: cut[0]] + cut[1] + images(1)[0][cut[0] + len(cut[1]) :]
    ),
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
@given(body=bodies, kind=st.sampled_from(["application/json", "image/png", "text/plain", "application/octet-stream"]))
def test_anything_is_answered_or_refused(front: Server | Web, body: bytes, kind: str) -> None:
    status, answer, _ = ask_raw(front, body, kind)
    assert status in (200, 400, 404, 413, 422), (status, answer)
    assert isinstance(json.loads(answer), dict)
