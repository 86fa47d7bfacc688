"""The two front ends as the tests of serving meet them: TorchServe, and the second one in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from _serving import Ask, Connection

from elude.handlers.errors import UsageError
from elude.handlers.torchserve.client import Client
from elude.handlers.torchserve.machine import free_ports
from elude.handlers.torchserve.server import Server

MODEL = "fashion"


class Web:
    """The second front end in a process of its own, with the part of ``Server`` that the shared tests use."""

    def __init__(self, bundle: Path, workers: int = 1) -> None:
        (self.inference_port,) = free_ports(1)
        command = [
            sys.executable,
            "-m",
            "elude.handlers.web",
            str(bundle),
            "--model",
            MODEL,
            "--port",
            str(self.inference_port),
            "--workers",
            str(workers),
            "--label",
            f"{MODEL}/stable=1.0",
        ]
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


def pids(front: Server | Web) -> list[int]:
    return front.pids() if isinstance(front, Web) else workers(front)


def workers(server: Server) -> list[int]:
    """Processes of the workers."""
    status = json.loads(server._management().send(f"/models/{MODEL}"))
    return [worker["pid"] for worker in status[0]["workers"] if worker["status"] == "READY"]


def children(web: Web) -> list[int]:
    """Processes of the second front end's workers."""
    present = []
    for child in psutil.Process(web.pids()[0]).children():
        with contextlib.suppress(psutil.Error):  # it has ended, or is about to
            if "resource_tracker" not in " ".join(child.cmdline()):
                present.append(child.pid)
    return present


def memory(pid: int) -> float:
    """Resident MiB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def cpu_seconds(front: Server | Web) -> float:
    """That a front end's processes have taken, with those that have ended: the same on a busy machine."""
    seconds = 0.0
    for pid in pids(front):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended: its parent's now
                times = process.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def connect(server: Server | Web) -> Connection:
    return Connection(server.inference_port, server.key("inference"), MODEL)


def ask_raw(server: Server | Web, body: bytes, kind: str) -> tuple[int, bytes, float]:
    begin = time.perf_counter()
    connection = connect(server)
    with contextlib.closing(connection):
        status, answer = connection.send(Ask("predictions", body, kind, 0, b""))
    return status, answer, time.perf_counter() - begin
