"""A real TorchServe under load, under fire and with a killed worker: no wrong answer, no request that hurts another, health that tells."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _serving import Ask, Connection, images, load, make_bundle, mixed, wrong
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from handlers.errors import EludeError, RequestError, UsageError
from handlers.service import Service
from handlers.settings import Settings
from handlers.torchserve.client import Client, ServerError
from handlers.torchserve.machine import free_ports
from handlers.torchserve.server import Server, ServerSettings
from model_store.archive import package

pytestmark = pytest.mark.server
MODEL = "fashion"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robust")
    return package(make_bundle(folder / "b"), folder, name=MODEL, version="1.0", settings=Settings(recheck_s=1))


@pytest.fixture(scope="module")
def local(archive: Path) -> Service:
    return Service.open(archive.parent / "b", model=MODEL)


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[Server]:
    with Server(archive, ServerSettings(workers=2, batch_size=8, batch_delay_ms=5)) as running:
        yield running


class Web:
    """The second front end in a process of its own, with the part of ``Server`` that the shared tests use."""

    def __init__(self, bundle: Path) -> None:
        (self.inference_port,) = free_ports(1)
        command = [sys.executable, "-m", "handlers.web", str(bundle), "--model", MODEL, "--port", str(self.inference_port)]
        environment = os.environ | {"ELUDE_TOKEN": "key of the tests", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, env=environment)
        client = Client(f"http://127.0.0.1:{self.inference_port}", self.key("inference"), model=MODEL)
        deadline = time.monotonic() + 30
        while True:
            try:
                client.send("/ping")
                return
            except UsageError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def key(self, kind: str) -> str:
        return "key of the tests"

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.inference_port}", self.key("inference"), model=MODEL)

    def pids(self) -> list[int]:
        return [self._process.pid] if self._process.poll() is None else []

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)


@pytest.fixture(scope="module")
def web(archive: Path) -> Iterator[Web]:
    running = Web(archive.parent / "b")
    yield running
    running.stop()


@pytest.fixture(params=["server", "web"])
def front(request: pytest.FixtureRequest) -> Server | Web:
    """Each front end in turn: both must pass the same tests."""
    found: Server | Web = request.getfixturevalue(request.param)
    return found


def pids(front: Server | Web) -> list[int]:
    return front.pids() if isinstance(front, Web) else workers(front)


def workers(server: Server) -> list[int]:
    """Processes of the workers."""
    status = json.loads(server._management().send(f"/models/{MODEL}"))
    return [worker["pid"] for worker in status[0]["workers"] if worker["status"] == "READY"]


def memory(pid: int) -> float:
    """Resident MiB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def connect(server: Server | Web) -> Connection:
    return Connection(server.inference_port, server.key("inference"), MODEL)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_mixed_load_gets_no_wrong_answer(front: Server | Web, local: Service, count: int) -> None:
    asks = mixed(local, count, seed=count)
    begin = time.monotonic()
    answers, seconds = load(asks, 32, lambda: connect(front).send)
    took = time.monotonic() - begin
    faults = [found for ask, (status, body) in zip(asks, answers, strict=True) if (found := wrong(ask, status, body))]
    same = sum(body == ask.answer for ask, (_, body) in zip(asks, answers, strict=True))
    statuses = Counter(status for status, _ in answers)
    print(f"{count} requests in {took:.1f} s, p50 {np.median(seconds) * 1000:.0f} ms, {same} bit-identical, statuses {dict(statuses)}")
    assert faults == []
    refused = [json.loads(body)["message"] for status, body in answers if 400 <= status < 500]
    assert len(refused) == round(count * 0.05)
    assert sum(n for status, n in statuses.items() if status >= 500) == 0


def test_the_comparison_sees_a_wrong_answer(local: Service) -> None:
    for ask in {ask.answer: ask for ask in mixed(local, 100)}.values():
        if ask.status != 200:
            assert wrong(ask, 200, ask.answer)
            assert wrong(ask, ask.status, ask.answer[:-5] + b'xx"}}')
        elif b'"steered"' in ask.answer:
            body = json.loads(ask.answer)
            body["max_output_change"] += 0.01
            assert ".max_output_change" in wrong(ask, 200, json.dumps(body).encode())


def test_a_worker_killed_under_load_costs_no_answer(server: Server, local: Service) -> None:
    asks = mixed(local, 1500, seed=7)
    before = workers(server)
    assert len(before) == 2
    times: dict[str, float] = {}

    def connect_client() -> object:
        client = server.client(timeout=5, retries=4)

        def send(ask: Ask) -> tuple[int, bytes]:
            if ask is asks[200]:
                times["killed"] = time.monotonic()
                os.kill(before[0], signal.SIGKILL)
            try:
                return 200, client.send(f"/{ask.path}/{MODEL}", ask.body, ask.kind)
            except ServerError as error:
                return error.status, str(error).encode()
            except EludeError as error:
                return getattr(error, "status", 599), b""

        return send

    answers, seconds = load(asks, 16, connect_client)  # type: ignore[arg-type]
    while len(set(workers(server)) - {before[0]}) < 2:
        assert time.monotonic() < times["killed"] + 60
        time.sleep(0.05)
    back = time.monotonic() - times["killed"]
    print(f"both workers ready {back:.1f} s after the kill; longest request {max(seconds):.1f} s")
    faults = []
    for ask, (status, body) in zip(asks, answers, strict=True):
        assert status == ask.status
        if status == 200 and (found := wrong(ask, status, body)):
            faults.append(found)
    assert faults == []


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hollow_png(width: int, height: int) -> bytes:
    """A PNG that says it is of that size and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def hostile() -> dict[str, tuple[bytes, str]]:
    """Body and content type of what must be refused."""
    image = images(1)[0]
    text = base64.b64encode(image).decode()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    edit = {"id": "blocks.5.mlp.fc2/u0.s0", "action": "scale", "value": 1}
    steer = {"op": "steer", "image": text, "edits": [edit]}
    bodies: dict[str, object] = {
        "no image": {"op": "predict"},
        "wrong type": {"image": 7},
        "a list": [1, 2],
        "null": None,
        "unknown field": {"image": text, "x": 1},
        "unknown operation": {"op": "../../etc/passwd"},
        "nan": steer | {"edits": [edit | {"value": float("nan")}]},
        "infinity": steer | {"edits": [edit | {"value": float("inf")}]},
        "huge number": steer | {"edits": [edit | {"value": 10**300}]},
        "huge whole number": {"image": text, "top_k": 10**1000},
        "negative patches": steer | {"edits": [edit | {"patches": -5}]},
        "unknown sub-unit": steer | {"edits": [edit | {"id": "blocks.5.mlp.fc2/u999999.s0"}]},
        "path as sub-unit": {"op": "feature", "id": "../../../etc/passwd"},
        "url as image": {"image": "file:///etc/passwd"},
        "half a character": {"op": "search", "query": "\ud800"},
        "concept of half a character": steer | {"edits": [{"concept": "\ud800", "action": "ablate"}]},
        "SQL": {"op": "feature", "id": "x'; DROP TABLE sub_units; --"},
        "a million edits": steer | {"edits": [{}] * 10**6},
        "a million images": {"instances": [""] * 10**6},
        "many fields": {f"field {i}": i for i in range(10**5)},
        "long text": {"op": "x" * 10**6},
    }
    found = {name: (json.dumps(body).encode(), "application/json") for name, body in bodies.items()}
    found |= {
        "deep": (b"[" * 10**6, "application/json"),
        "deep object": (b'{"op":' * 10**5, "application/json"),
        "cut JSON": (json.dumps(steer).encode()[:-9], "application/json"),
        "not UTF-8": (b'{"op": "\xff\xfe"}', "application/json"),
        "NUL": (b"\0" * 1000, "application/json"),
        "empty": (b"", "application/json"),
        "empty image": (b"", "image/png"),
        "text": ("ж" * 1000, "text/plain"),  # type: ignore[dict-item]
        "cut PNG": (image[: len(image) // 2], "image/png"),
        "cut JPEG": (encoded(noise, "JPEG")[:2000], "image/jpeg"),
        "cut WebP": (encoded(noise, "WEBP")[:2000], "image/webp"),
        "cut GIF": (encoded(noise, "GIF")[:2000], "image/gif"),
        "cut TIFF": (encoded(noise, "TIFF")[:2000], "image/tiff"),
        "bomb": (hollow_png(20_000, 20_000), "image/png"),
        "bomb of 2^31": (hollow_png(2**31 - 1, 2**31 - 1), "image/png"),
        "hollow": (hollow_png(1000, 1000), "image/png"),
        "true bomb": (encoded(Image.new("L", (12_000, 12_000)), "PNG"), "image/png"),
        "bomb GIF": (encoded(Image.new("P", (16_000, 16_000)), "GIF"), "image/gif"),
        "thin": (encoded(Image.new("L", (1, 5000)), "PNG"), "image/png"),
        "very thin": (encoded(Image.new("1", (1, 2_000_000)), "TIFF"), "image/tiff"),
        "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/eps"),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        "float TIFF": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "image/tiff"),
        "7 MB of noise": (os.urandom(7 * 2**20), "image/png"),
        "broken multipart": (b"--x\r\nnonsense", "multipart/form-data; boundary=x"),
        "multipart without an image": (
            b'--x\r\nContent-Disposition: form-data; name="y"\r\n\r\n1\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    }
    return {name: (body.encode() if isinstance(body, str) else body, kind) for name, (body, kind) in found.items()}


def ask_raw(server: Server | Web, body: bytes, kind: str) -> tuple[int, bytes, float]:
    begin = time.perf_counter()
    connection = connect(server)
    with contextlib.closing(connection):
        status, answer = connection.send(Ask("predictions", body, kind, 0, b""))
    return status, answer, time.perf_counter() - begin


def test_hostile_requests_are_refused_at_once_with_a_message(front: Server | Web, local: Service) -> None:
    before = set(pids(front))
    sizes, slowest, bodies = [], ("", 0.0), hostile()
    for _ in range(3):
        for name, (body, kind) in bodies.items():
            status, answer, seconds = ask_raw(front, body, kind)
            assert 400 <= status < 500, (name, status, answer[:300])
            message = json.loads(answer)["message"]
            assert 10 < len(message) < 600, (name, message)
            if seconds > 1:  # another process may have had the core
                seconds = min(seconds, *(ask_raw(front, body, kind)[2] for _ in range(2)))
            assert seconds < 1, (name, seconds)
            slowest = max(slowest, (name, seconds), key=lambda pair: pair[1])
        sizes.append(sum(memory(pid) for pid in before))
    print(f"workers' memory after each round of {len(bodies)}: {[round(size) for size in sizes]} MiB; slowest {slowest}")
    assert set(pids(front)) == before
    assert sizes[-1] - sizes[0] < 60


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
    odd = {"X-Odd": b"\xff\xfe", "explain": "True", "describe": "maybe", "X-Long": "x" * 4000, "Content-Type": "image/png"}
    headers = {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in odd.items()}
    connection.request("POST", f"/predictions/{MODEL}", images(1)[0], headers | {"Authorization": f"Bearer {server.key('inference')}"})
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
fields = st.sampled_from(["op", "image", "edits", "top_k", "id", "query", "instances", "inputs", "preset", "by", "parameters"])
bodies = st.one_of(
    st.dictionaries(fields, values | st.sampled_from(["predict", "inspect", "steer", "search", "feature"]), max_size=5).map(
        lambda body: json.dumps(body).encode()
    ),
    st.binary(max_size=300),
    st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)).map(
        lambda cut: images(1)[0][: cut[0]] + cut[1] + images(1)[0][cut[0] + len(cut[1]) :]
    ),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], derandomize=True
)
@given(body=bodies, kind=st.sampled_from(["application/json", "image/png", "text/plain", "application/octet-stream"]))
def test_anything_is_answered_or_refused(front: Server | Web, body: bytes, kind: str) -> None:
    status, answer, _ = ask_raw(front, body, kind)
    assert status in (200, 400, 404, 413, 422), (status, answer)
    assert isinstance(json.loads(answer), dict)


def test_the_second_front_end_keeps_its_key_and_tells_its_health(web: Web, archive: Path) -> None:
    image, client = images(1)[0], web.client()
    assert list(client.predict(image)) == list(client.explain(image)["prediction"])
    assert client.describe()["steering"] == "free"
    for token in (None, "wrong"):
        for path in (f"/predictions/{MODEL}", "/metrics", "/ping"):
            with pytest.raises(RequestError, match="key is missing or wrong") as caught:
                Client(client.url, token, model=MODEL).send(path, image if "pred" in path else None)
            assert caught.value.status == 401
    with pytest.raises(RequestError, match="Model not found"):
        Client(client.url, web.key("inference"), model="other").predict(image)
    assert 'elude_requests_total{operation="predict",status="200"}' in client.send("/metrics").decode()


def test_the_second_front_end_turns_unhealthy_and_stops(local: Service, tmp_path: Path) -> None:
    copy = tmp_path / "b"
    shutil.copytree(local.bundle.root, copy)
    web = Web(copy)
    assert json.loads(web.client().send("/ping"))["status"] == "Healthy"
    (copy / "labels.json").write_text("[]")
    with pytest.raises(ServerError, match=r"Unhealthy.*labels\.json was changed"):
        Client(f"http://127.0.0.1:{web.inference_port}", web.key("inference"), retries=0).send("/ping")
    assert web.stop() in (0, -signal.SIGTERM)


def test_metrics_count_by_operation_and_status(server: Server, local: Service) -> None:
    layer = local.session.layers[0].name
    client = server.client()
    client.feature(f"{layer}/u3.s0")
    with contextlib.suppress(EludeError):
        client.feature(f"{layer}/u3.s99")
    deadline = time.monotonic() + 10
    metrics = Client(f"http://127.0.0.1:{server.metrics_port}", server.key("management"))
    while True:
        text = metrics.send("/metrics").decode()
        lines = [line for line in text.splitlines() if line.startswith("elude_")]
        refused = [line for line in lines if 'operation="feature"' in line and 'status="404"' in line]
        if refused or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert refused
    assert any(line.startswith("elude_batch_seconds_bucket") and 'model_name="fashion"' in line for line in lines)
    assert f"{layer}" not in text
    labels = {label.split("=")[0] for line in lines if "{" in line for label in line.split("{")[1].split("}")[0].split(",") if label}
    assert labels <= {"model_name", "model_version", "operation", "status", "Hostname", "le"}


def test_the_log_says_what_was_refused_and_nothing_of_its_content(server: Server) -> None:
    secret = base64.b64encode(b"secret picture").decode()
    with pytest.raises(EludeError):
        server.client().call("predict", image=secret)
    deadline = time.monotonic() + 10
    while "answered" not in (log := server.log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    line = next(line for line in log.splitlines() if '"event": "answered"' in line)
    entry = json.loads(line[line.index("{") :])
    assert {"model", "version", "request", "operation", "status", "batch_ms"} <= entry.keys()
    assert secret[:12] not in log


def test_health_turns_bad_when_a_file_is_damaged_while_serving(local: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.archive.RETRY_S", 3)
    archive = package(local.bundle, tmp_path, name=MODEL, version="1.0")
    with Server(archive, ServerSettings(overrides={"recheck_s": 0.5}), folder=tmp_path / "run") as running:
        client = running.client(retries=0)
        assert json.loads(client.send("/ping"))["status"] == "Healthy"
        unpacked = list(running._sockets.rglob("catalogue.sqlite"))
        assert len(unpacked) == 1
        with unpacked[0].open("r+b") as file:
            file.seek(5000)
            file.write(b"\xff")
        begin = time.monotonic()
        while True:
            with contextlib.suppress(ServerError):
                assert json.loads(client.send("/ping"))["status"] == "Healthy"
                assert time.monotonic() < begin + 90
                time.sleep(0.2)
                continue
            break
        print(f"unhealthy {time.monotonic() - begin:.0f} s after the damage")
        assert "bundle/catalogue.sqlite was changed" in running.log.read_text()
