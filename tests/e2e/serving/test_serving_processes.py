"""The web front end in several processes: one that dies or hangs is replaced, metrics are of all, SIGTERM ends all."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from _fronts import Web, children
from _serving import images

from elude.handlers.errors import EludeError

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def several(archive: Path) -> Iterator[Web]:
    web = Web(archive.parent / "b", workers=2)
    yield web
    begin = time.monotonic()
    children = psutil.Process(web.pids()[0]).children(recursive=True)
    assert web.stop() in (0, -signal.SIGTERM)
    print(f"stopped in {time.monotonic() - begin:.1f} s")
    assert time.monotonic() - begin < 15
    _, left = psutil.wait_procs(children, timeout=20)  # multiprocessing's tracker ends after its parent
    assert left == []


def answered(web: Web) -> int:
    """Requests that the metrics count, of all processes."""
    lines = web.client().send("/metrics").decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("elude_requests_total"))


def held(web: Web, callers: int) -> list[int]:
    """Connections that each worker has of that many."""
    connections = []
    for _ in range(callers):
        connection = http.client.HTTPConnection("127.0.0.1", web.inference_port, timeout=10)
        connection.request("GET", "/v2/health/live")
        connection.getresponse().read()
        connections.append(connection)
    taken = [sum(c.status == "ESTABLISHED" for c in psutil.Process(pid).net_connections()) for pid in children(web)]
    for connection in connections:
        connection.close()
    return taken


def test_workers_share_connections(several: Web) -> None:
    deadline = time.monotonic() + 30
    while min(held(several, 4)) == 0:  # the second one loads its model yet
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(0.5)
    taken = held(several, 16)
    assert sum(taken) == 16
    assert min(taken) >= 5  # even but for what a busy machine delays


def test_metrics_are_of_all_processes(several: Web) -> None:
    before = answered(several)
    for _ in range(40):
        several.client().predict(images(1)[0])
    assert answered(several) == before + 40


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_replaced(several: Web, number: int) -> None:
    victim, *_ = before = children(several)
    assert len(before) == 2
    begin = time.monotonic()
    os.kill(victim, number)
    client, failed, longest = several.client(), 0, 0.0
    while len(set(children(several)) - {victim}) < 2 or time.monotonic() < begin + 2:
        asked = time.monotonic()
        with contextlib.suppress(EludeError):
            client.predict(images(1)[0])
            failed -= 1
        failed += 1
        longest = max(longest, time.monotonic() - asked)
        assert time.monotonic() < begin + 60
    print(
        f"{signal.Signals(number).name}: replaced after {time.monotonic() - begin:.1f} s, longest wait {longest:.1f} s"
    )
    assert failed == 0


def test_a_connection_is_taken_although_another_worker_stands_still(several: Web) -> None:
    still, *_ = children(several)
    os.kill(still, signal.SIGSTOP)
    try:
        connections = []
        for _ in range(6):
            connection = http.client.HTTPConnection("127.0.0.1", several.inference_port, timeout=10)
            begin = time.monotonic()
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().status == 200
            assert time.monotonic() - begin < 5
            connections.append(connection)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(still, signal.SIGCONT)
