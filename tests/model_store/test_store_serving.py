"""A server follows its store: what is promoted answers next, no request fails, and what cannot be served changes
nothing.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from _stores import make
from _worked import PICTURE

from elude.handlers.errors import BundleError, EludeError, UsageError
from elude.handlers.torchserve.client import Client
from elude.handlers.torchserve.machine import free_ports
from elude.handlers.web.models import Models
from elude.model_store.serving import StoreSource
from elude.model_store.store import Store

COLOURS = ("red", "green", "blue")
WHO = {"who": "Ada", "why": "release"}


def admit(store: Store, folder: Path, name: str, series: str = "tiny", **how: Any) -> str:
    """Admit a bundle whose labels begin with its name; gives the version's id."""
    bundle = make(folder / name, content=name.encode(), labels=[f"{name} {colour}" for colour in COLOURS])
    return store.admit(bundle.root, name=series, **WHO, **how).id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Versions v1, in production, and v2 of ``tiny``."""
    made = Store(tmp_path / "store")
    first = admit(made, tmp_path, "v1", make_archive=True)
    admit(made, tmp_path, "v2", make_archive=True)
    made.promote(first, **WHO)
    return made


def served(source: StoreSource, folder: Path) -> list[tuple[str, str]]:
    return [(entry.model, entry.version) for entry in source(folder).versions]


def test_what_is_in_production_is_served_and_nothing_else(store: Store, tmp_path: Path) -> None:
    source = StoreSource(store)
    assert served(source, tmp_path / "p") == [("tiny", "1.0")]
    assert source(tmp_path / "p").versions[0].labels == ("production",)
    store.promote(admit(store, tmp_path, "other", "other"), **WHO)
    store.promote("tiny/2", **WHO)
    assert served(source, tmp_path / "p") == [("tiny", "2.0"), ("other", "1.0")]
    assert served(StoreSource(store, ["other"]), tmp_path / "q") == [("other", "1.0")]
    store.rollback("tiny", **WHO)
    assert served(source, tmp_path / "p") == [("tiny", "1.0"), ("other", "1.0")]


def test_stages_are_labels_and_the_first_one_answers(store: Store, tmp_path: Path) -> None:
    store.promote("tiny/2", "candidate", **WHO)
    plan = StoreSource(store, stages=("production", "candidate"))(tmp_path / "p")
    assert [(entry.version, entry.labels) for entry in plan.versions] == [
        ("1.0", ("production",)),
        ("2.0", ("candidate",)),
    ]
    table = Models.load(plan).table
    assert table.find("tiny").version == "1.0"
    assert table.find("tiny", label="candidate").version == "2.0"


def test_a_verdict_is_required_and_steering_is_not_free(store: Store, tmp_path: Path) -> None:
    service = Models.load(StoreSource(store)(tmp_path / "p")).table.find("tiny").service
    assert service.admission.required
    assert service.describe()["steering"] == "presets"


def test_a_store_without_the_model_is_named(store: Store, tmp_path: Path) -> None:
    for source in (StoreSource(store, ["none"]), StoreSource(store, stages=("candidate",))):
        with pytest.raises(UsageError, match="stage"):
            source(tmp_path / "p")
    with pytest.raises(UsageError):
        StoreSource(store, stages=("latest",))


def damage(store: Store, version: str, name: str = "model.onnx") -> None:
    path = Path(store.show(version).bundle, name)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_a_damaged_version_is_refused_at_the_start(store: Store, tmp_path: Path) -> None:
    damage(store, "tiny/1")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        StoreSource(store)(tmp_path / "p")


def test_a_damaged_promotion_leaves_the_old_version_and_says_why(store: Store, tmp_path: Path) -> None:
    source = StoreSource(store)
    before = source(tmp_path / "p")
    store.promote("tiny/2", **WHO)
    damage(store, "tiny/2")
    after = source(tmp_path / "p")
    assert after.versions == before.versions
    assert "model.onnx" in after.problems["tiny"]
    assert not (tmp_path / "p/tiny/2").exists()
    store.rollback("tiny", **WHO)
    assert source(tmp_path / "p").problems == {}


def test_what_was_checked_is_what_is_served_whatever_happens_to_the_store(store: Store, tmp_path: Path) -> None:
    plan = StoreSource(store)(tmp_path / "p")
    damage(store, "tiny/1")
    damage(store, "tiny/1", "labels.json")
    assert Models.load(plan).table.find("tiny").service.labels == [f"v1 {colour}" for colour in COLOURS]
    entry = plan.versions[0]
    shutil.copytree(store.show("tiny/2").bundle, Path(entry.bundle), dirs_exist_ok=True, copy_function=_replace)
    with pytest.raises(EludeError, match="another bundle"):  # even another that was admitted
        Models.load(plan)


def _replace(source: str, target: str) -> str:
    Path(target).unlink(missing_ok=True)
    return shutil.copy(source, target)


def test_a_store_that_cannot_be_read_for_a_while_changes_nothing(store: Store, tmp_path: Path) -> None:
    source = StoreSource(store)
    before = source(tmp_path / "p")
    record = Path(store.place.location("record"))
    record.rename(record.with_name("away"))
    after = source(tmp_path / "p")
    assert (after.versions, list(after.problems)) == (before.versions, ["tiny"])
    record.with_name("away").rename(record)
    assert source(tmp_path / "p") == before


def test_copies_that_nobody_needs_are_removed(store: Store, tmp_path: Path) -> None:
    source, private = StoreSource(store), tmp_path / "p"
    source(private)
    versions = [admit(store, tmp_path, f"w{number}") for number in range(4)]
    for version in versions:
        store.promote(version, **WHO)
        source(private)
    assert len(list((private / "tiny").iterdir())) == 3


class Following:
    """``elude serve STORE`` in processes of its own."""

    def __init__(self, store: Path, workers: int) -> None:
        (self.port,) = free_ports(1)
        command = [sys.executable, "-m", "elude", "serve", str(store), "tiny", "--port", str(self.port)]
        command += ["--workers", str(workers), "--reload-s", "0.3"]
        environment = os.environ | {"ELUDE_TOKEN": "key of the tests", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client().send("/ping")
                return
            except UsageError:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", "key of the tests", model="tiny", retries=0)

    def stop(self) -> str:
        """What it logged."""
        self.process.terminate()
        return self.process.communicate(timeout=20)[1]


@pytest.fixture
def following(store: Store, tmp_path: Path) -> Iterator[Callable[[int], Following]]:
    running: list[Following] = []

    def start(workers: int) -> Following:
        running.append(Following(tmp_path / "store", workers))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


class Caller(threading.Thread):
    """Asks over one kept connection, so of one worker, until it is told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.versions, self.failed, self.done = port, list[str](), list[str](), threading.Event()

    def run(self) -> None:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = json.dumps({"image": base64.b64encode(PICTURE).decode()}).encode()
        headers = {"Authorization": "Bearer key of the tests"}
        while not self.done.is_set():
            connection.request("POST", "/predictions/tiny", body, headers)
            response = connection.getresponse()
            answer = response.read().decode()
            if response.status != 200:
                self.failed.append(f"{response.status} {answer}")
            else:
                self.versions.append(next(iter(json.loads(answer))).split()[0])
        connection.close()


def wait_for(true: Callable[[], bool], seconds: float = 30) -> float:
    """Seconds until it is so."""
    begin = time.monotonic()
    while not true():
        assert time.monotonic() < begin + seconds
        time.sleep(0.05)
    return time.monotonic() - begin


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_promotion_under_load_fails_no_request_and_changes_each_worker_once(
    store: Store, following: Callable[[int], Following], workers: int
) -> None:
    server = following(workers)
    callers = [Caller(server.port) for _ in range(8)]
    for caller in callers:
        caller.start()
    wait_for(lambda: all(len(caller.versions) > 20 for caller in callers))
    store.promote("tiny/2", **WHO)
    seconds = wait_for(lambda: all(caller.versions[-1] == "v2" for caller in callers))
    asked = [len(caller.versions) for caller in callers]
    wait_for(lambda: all(len(c.versions) > before + 20 for c, before in zip(callers, asked, strict=True)))
    for caller in callers:
        caller.done.set()
        caller.join()
    print(f"{workers} workers: {sum(len(c.versions) for c in callers)} answers, the new one {seconds:.1f} s later")
    assert [caller.failed for caller in callers] == [[]] * 8
    assert [[version for version, _ in groupby(caller.versions)] for caller in callers] == [["v1", "v2"]] * 8
    lines = [json.loads(line) for line in server.stop().splitlines()]
    loaded = [line for line in lines if line.get("event") == "reload"]
    assert [(line["version"], line["outcome"]) for line in loaded] == [("2.0", "loaded")] * workers


@pytest.mark.server
@pytest.mark.slow
def test_a_promotion_that_cannot_be_served_is_reported_and_the_old_one_answers(
    store: Store, following: Callable[[int], Following]
) -> None:
    server = following(1)
    os.kill(server.process.pid, signal.SIGSTOP)  # it looks again once the version is damaged
    store.promote("tiny/2", **WHO)
    damage(store, "tiny/2")
    os.kill(server.process.pid, signal.SIGCONT)
    wait_for(lambda: "reload" in json.loads(server.client().send("/ping")))
    assert "model.onnx" in json.loads(server.client().send("/v1/models/tiny"))["reload"]
    assert next(iter(server.client().predict(PICTURE))).startswith("v1 ")
    metrics = server.client().send("/metrics").decode()
    assert 'elude_reload_failing{model_name="tiny"} 1.0' in metrics
    store.rollback("tiny", **WHO)
    wait_for(lambda: "reload" not in json.loads(server.client().send("/ping")))
    assert 'elude_reload_failing{model_name="tiny"} 0.0' in server.client().send("/metrics").decode()
    refused = [json.loads(line) for line in server.stop().splitlines() if "tiny/2" in line]
    assert refused
    assert "model.onnx" in refused[0]["reason"]
