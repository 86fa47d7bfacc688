"""A real TorchServe with a real archive of the embedded model: what HTTP answers is what the service answers, and
nothing stays behind.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from _serving import differs, images, make_bundle
from PIL import Image

import elude.exporter.models.torchvision_compat  # noqa: F401
from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EvaluationError, RequestError, UsageError
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service
from elude.handlers.settings import Limits, Settings
from elude.handlers.torchserve.client import Client, ServerError
from elude.handlers.torchserve.machine import free_ports
from elude.handlers.torchserve.server import Server, ServerSettings, serve
from elude.model_store.archive import package

pytestmark = pytest.mark.server
ROOT = Path(__file__).parent.parent.parent
SETTINGS = Settings(Limits(max_edits=8))
LOG_BYTES = 20_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture(scope="module")
def archive(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(bundle, tmp_path_factory.mktemp("archive"), name="fashion", version="1.0", settings=SETTINGS)


@pytest.fixture(scope="module")
def server(archive: Path) -> Iterator[Server]:
    with Server(archive, ServerSettings(batch_size=8, batch_delay_ms=50, log_bytes=LOG_BYTES)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return server.client()


@pytest.fixture(scope="module")
def local(bundle: Bundle) -> Service:
    return Service.open(bundle.root, SETTINGS, model="fashion")


def group(pid: int) -> list[int]:
    """Living processes (no zombies) of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(pgrp) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def test_predict_over_http_is_what_the_service_answers(client: Client, local: Service) -> None:
    for image in images(5):
        expected = local.answer([Call(image)])[0].body
        assert client.send("/predictions/fashion", image, "application/octet-stream") == expected
        assert client.send("/predictions/fashion/1.0", image, "image/png") == expected
    assert client.predict(images(1)[0]) == json.loads(local.answer([Call(images(1)[0])])[0].body)


def test_multipart_and_text_forms(client: Client, local: Service) -> None:
    image = images(1)[0]
    expected = local.answer([Call(image)])[0].body
    head = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    assert (
        client.send("/predictions/fashion", head + image + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
        == expected
    )
    assert client.send("/predictions/fashion", base64.b64encode(image), "text/plain") == expected
    body = json.dumps({"op": "predict", "image": base64.b64encode(image).decode()}).encode()
    assert client.send("/predictions/fashion", body, "application/json; charset=utf-8") == expected


def test_every_operation(client: Client, server: Server, bundle: Bundle, local: Service) -> None:
    image = images(1)[0]
    inspected = client.inspect(image, top_k=3)
    assert len(inspected["sub_units"]) == 3
    layer = bundle.manifest.layers[0].name
    assert inspected["sum_check"][layer]["max_residual"] < 1e-4
    assert np.array(inspected["sub_units"][0]["heat_map"]["values"]).shape == (7, 7)
    assert client.explain(image)["sub_units"][:3] == inspected["sub_units"]
    strongest = inspected["sub_units"][0]["id"]
    steered = client.steer(image, [{"id": strongest, "action": "scale", "value": -20}])
    assert steered["unsteered"] == near(client.predict(image))
    assert steered["steered"] != steered["unsteered"]
    assert steered["max_output_change"] > 0
    feature = client.feature(strongest)
    assert feature["name"] == inspected["sub_units"][0]["name"]
    assert client.search(feature["name"])["sub_units"][0]["id"] == strongest
    described = client.describe()
    assert described["artefact_sha256"] == bundle.artefact_sha256
    assert described["limits"]["max_edits"] == 8
    assert server.describe() == described == local.describe()


def test_unlike_requests_at_once_each_get_their_own_answer(client: Client, local: Service) -> None:
    layer = local.session.layers[0].name
    bodies: list[tuple[bytes, str, str]] = []
    for i, image in enumerate(images(24)):
        text = base64.b64encode(image).decode()
        edit = {"id": f"{layer}/u{i}.s0", "action": "scale", "value": i}
        steer = json.dumps({"op": "steer", "image": text, "edits": [edit]}).encode()
        bodies += [
            (image, "image/png", "predictions"),
            (image[:40], "image/png", "predictions"),
            (image, "image/png", "explanations"),
        ]
        bodies += [
            (steer, "application/json", "predictions"),
            (steer.replace(b".s0", b".s99"), "application/json", "predictions"),
        ]

    def ask(request: tuple[bytes, str, str]) -> tuple[int, bytes | str]:
        body, kind, route = request
        try:
            return 200, client.send(f"/{route}/fashion", body, kind)
        except RequestError as error:
            return error.status, error.message

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, bodies))
    statuses = [status for status, _ in answers]
    assert statuses == [200, 400, 200, 200, 404] * 24
    for (body, _, route), (status, content) in zip(bodies, answers, strict=True):
        expected = local.answer([Call(body, explain=route == "explanations")])[0]
        assert status == expected.status
        if status == 200:
            assert isinstance(content, bytes)
            assert not differs(json.loads(content), json.loads(expected.body))


def test_the_log_is_bounded_and_quotes_no_request(server: Server, client: Client) -> None:
    """Not even what TorchServe cannot decode: an image sent as a form, which it answers itself."""
    secret = "%zzSECRET" + "A" * 200
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=SECRET", "image/png"):
        with pytest.raises((RequestError, ServerError)):
            Client(client.url, server.key("inference"), model="fashion", retries=0).send(
                "/predictions/fashion?SECRET=SECRET", secret.encode(), kind
            )
    for _ in range(4 * LOG_BYTES // 100):  # a line of the access log is longer than that
        client.send("/ping")
    logs = sorted(server.folder.glob("*.log*"))
    assert sum(log.stat().st_size for log in logs) > LOG_BYTES + 10_000  # it was started anew
    assert len(logs) <= 6  # server.log, four older parts, what Java prints
    assert all(log.stat().st_size < LOG_BYTES + 10_000 for log in logs)
    text = "".join(log.read_text() for log in logs)
    assert "ACCESS_LOG" in text
    assert "SECRET" not in text
    assert not [path for path in server.folder.iterdir() if path not in logs and path.name != "key_file.json"]


def test_the_key_is_needed(server: Server) -> None:
    url = f"http://127.0.0.1:{server.inference_port}"
    for token in (None, "wrong"):
        with pytest.raises(RequestError, match="Token Authorization failed"):
            Client(url, token, model="fashion").predict(images(1)[0])


def test_metrics_are_for_prometheus(server: Server, client: Client) -> None:
    client.predict(images(1)[0])
    request = urllib.request.Request(f"http://127.0.0.1:{server.metrics_port}/metrics")
    request.add_header("Authorization", f"Bearer {server.key('management')}")
    with urllib.request.urlopen(request) as response:
        assert b"ts_inference_requests_total" in response.read()


def test_the_worker_needs_nothing_of_the_project(server: Server) -> None:
    workers = [pid for pid in group(server.pid) if b"model_service_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 1
    environment = Path(f"/proc/{workers[0]}/environ").read_bytes().split(b"\0")
    assert b"OMP_NUM_THREADS=1" in environment
    assert not any(
        entry.startswith(b"PYTHONPATH=") and str(ROOT).encode() in entry.split(b":") for entry in environment
    )


def test_a_changed_byte_does_not_load_and_is_named(archive: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mar"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(broken, "w") as new:
        for entry in old.namelist():
            data = bytearray(old.read(entry))
            if entry == "bundle/model.onnx":
                data[len(data) // 2] ^= 1
            new.writestr(entry, bytes(data))
    server = Server(broken, folder=tmp_path / "run")
    with pytest.raises(UsageError, match=r"bundle/model\.onnx was changed"):
        server.start()
    assert server.pid == 0  # nothing was started
    assert not (tmp_path / "run").exists()


def test_nothing_stays_behind(archive: Path) -> None:
    with Server(archive) as server:
        assert len(group(server.pid)) >= 2
        pid, folder, port = server.pid, server.folder, server.inference_port
    assert group(pid) == []
    assert not folder.exists()
    with pytest.raises(UsageError, match="Is the server running"):
        Client(f"http://127.0.0.1:{port}", model="fashion").predict(b"x")


def near(probabilities: dict[str, float]) -> object:
    """Equal within rounding: ONNX Runtime takes another kernel for one row than for several, which may change the
    last bits.
    """
    return pytest.approx(probabilities, abs=1e-6)


def test_a_failed_start_leaves_the_log_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    archive = package(bundle, tmp_path, name="fashion", version="1.0")
    before = set(Path(tempfile.gettempdir()).glob("elude-*"))
    with pytest.raises(EvaluationError, match="has no verdict"):
        Server(archive, ServerSettings(admission=Requirements(verdict=True)), folder=tmp_path / "run").start()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["java.log", "server.log"]
    assert set(Path(tempfile.gettempdir()).glob("elude-*")) == before


def test_a_long_temporary_folder_and_a_folder_with_any_name_serve_as_well(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's path may have about a hundred characters; Java's configuration is Latin-1 with escapes."""
    long = tmp_path / ("t" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with Server(archive, folder=tmp_path / "Füße, a=b 100% \\u0041") as running:
        assert running.client().predict(images(1)[0])
        assert running.key_expires > datetime.now(UTC)
        others = (running.inference_port, *free_ports(2))
        with pytest.raises(UsageError, match=rf"Port {others[0]} \(for inference\)"):
            Server(archive, ports=others).start()
    assert not list(long.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(archive: Path, number: signal.Signals) -> None:
    code = f"""
        from elude.handlers.torchserve.server import Server, serve
        serve(Server({str(archive)!r}), lambda server: print(server.pid, server.folder, flush=True))
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # noqa: PLW1509 - ignored by what nohup starts
    )
    assert child.stdout is not None
    pid, folder = child.stdout.readline().split()
    assert group(int(pid))
    os.kill(child.pid, number)
    try:
        assert child.wait(60) == 0
    finally:
        child.stdout.close()
        if child.poll() is None:  # it did not stop: leave nothing behind all the same
            child.kill()
            os.killpg(int(pid), signal.SIGKILL)
    assert group(int(pid)) == []
    assert not Path(folder.decode()).exists()


def test_a_server_that_ends_by_itself_is_told(archive: Path, tmp_path: Path) -> None:
    def end(server: Server) -> None:
        os.kill(server.pid, signal.SIGKILL)

    with pytest.raises(EvaluationError, match="ended by itself with status -9"):
        serve(Server(archive, folder=tmp_path), end)


def test_versions_side_by_side_and_keys_that_expire(bundle: Bundle, tmp_path: Path) -> None:
    archives = [
        package(bundle, tmp_path / f"{version}.mar", name="fashion", version=version, settings=Settings(preset=preset))
        for version, preset in (("1.0", "a"), ("2.0", "b"))
    ]
    image, answers = images(1)[0], []
    with Server(archives, ServerSettings(token_minutes=0.05)) as running:
        clients = [running.client(version=version) for version in ("1.0", "2.0")]
        first = running.key("inference")
        for version, preset in (("1.0", "a"), ("2.0", "b")):
            client = running.client(version=version)
            answers.append(client.predict(image))
            assert answers[-1] == near(client.steer(image, preset=preset)["steered"])
            assert client.describe()["preset"] == preset
        time.sleep(3.5)
        with pytest.raises(RequestError, match="Token"):
            Client(f"http://127.0.0.1:{running.inference_port}", first, model="fashion").predict(image)
        assert [client.predict(image) for client in clients] == answers
        assert running.key("inference") != first
        assert running.describe()["preset"] == "a"
    assert answers[0] != answers[1]


def test_kserve_routes(client: Client, local: Service) -> None:
    text = base64.b64encode(images(1)[0]).decode()
    body = json.dumps({"instances": [text, {"image": {"b64": text}}]}).encode()
    expected = json.loads(local.answer([Call(images(1)[0])])[0].body)
    answered = json.loads(client.send("/v1/models/fashion:predict", body))["predictions"]
    assert answered == [near(expected)] * 2
    explained = json.loads(client.send("/v1/models/fashion:explain", body))["predictions"][0]
    alone = client.explain(images(1)[0])
    assert explained["prediction"] == near(alone["prediction"])
    assert [found["id"] for found in explained["sub_units"]] == [found["id"] for found in alone["sub_units"]]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    answer = json.loads(client.send("/v2/models/fashion/infer", json.dumps({"id": "7", "inputs": [tensor]}).encode()))
    assert (answer["id"], answer["model_name"], answer["outputs"][0]["data"]) == ("7", "fashion", list(expected))


def test_a_picture_of_another_kind(client: Client) -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (300, 200), (0, 255, 0, 0)).save(buffer, "JPEG")
    assert sum(client.predict(buffer.getvalue()).values()) <= 1.000001


def test_what_is_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.mar").write_text("hello")
    for path in (tmp_path / "x.mar", tmp_path / "none.mar"):
        with pytest.raises(UsageError, match="not a model archive"):
            Server(path)


def test_java_is_found_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from elude.handlers.torchserve import machine as module

    assert module.find_java().is_file()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    with pytest.raises(UsageError, match="needs Java"):
        module.find_java()
    with pytest.raises(UsageError, match="TorchServe is not installed"):
        module.find_torchserve()
