"""Keys, metrics, logs, and health that tells when a file was damaged."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from _fronts import MODEL, Web, workers
from _serving import images

from elude.handlers.errors import EludeError, RequestError
from elude.handlers.service import Service
from elude.handlers.torchserve.client import Client, ServerError
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.archive import package

pytestmark = pytest.mark.server


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
    lines = client.send("/metrics").decode().splitlines()
    counts = [line for line in lines if line.startswith("elude_requests_total") and 'operation="predict"' in line]
    assert any('status="200"' in line and float(line.split()[-1]) >= 1 for line in counts)
    assert any(line.startswith("elude_request_seconds_bucket") for line in lines)


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
    labels = {
        label.split("=")[0]
        for line in lines
        if "{" in line
        for label in line.split("{")[1].split("}")[0].split(",")
        if label
    }
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


def test_health_turns_bad_when_a_file_is_damaged_while_serving(
    local: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elude.handlers.torchserve.archives.RETRY_S", 3)
    archive = package(local.bundle, tmp_path, name=MODEL, version="1.0")
    with Server(archive, ServerSettings(overrides={"recheck_s": 0.5}), folder=tmp_path / "run") as running:
        client = running.client(retries=0)
        assert json.loads(client.send("/ping"))["status"] == "Healthy"
        (worker,) = workers(running)  # its working folder is the unpacked archive
        with Path(f"/proc/{worker}/cwd/bundle/catalogue.sqlite").open("r+b") as file:
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
