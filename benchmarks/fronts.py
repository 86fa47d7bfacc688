"""The web front end beside TorchServe: what ``predict`` costs against a plain handler for the same ONNX file, and
whether memory stays flat.

    python -m benchmarks.fronts cost --model vit_small_patch16_224 --workers 1 2
    python -m benchmarks.fronts memory --front web --minutes 20

``cost`` runs both servers at once, and only one of them is asked at a time, in alternating blocks; each ratio is of the
two blocks of a round. ``memory`` asks at a steady rate and fits a line to the memory of all processes of the server.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.serving import Request, UncheckedServer, block, make_bundle, pictures, plain_archive, requests
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.torchserve.machine import free_ports
from elude.handlers.torchserve.server import ServerSettings
from elude.model_store.archive import package

KEY = "key of the benchmark"


@dataclass(frozen=True)
class Front:
    """A running server: its address, its key, and the process that the others are children of."""

    port: int
    key: str
    pid: int

    def memory(self) -> float:
        """MiB of all its processes, shared pages split."""
        kib = 0
        for process in [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
                kib += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        return kib / 1024


class Caller:
    """A kept-alive connection."""

    def __init__(self, front: Front) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=120)
        self._key = front.key

    def connect(self) -> None:
        """Open the connection anew: a server closes one that nobody used for a while."""
        self._connection.close()
        self._connection.connect()

    def seconds(self, request: Request) -> float:
        """Ask and give the time it took; anything but 200 ends the benchmark."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": request.kind}
        begin = time.perf_counter()
        self._connection.request("POST", request.path, request.body, headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"{request.path}: {response.status} {body[:300]!r}")
        return time.perf_counter() - begin


@contextmanager
def web(bundle: Bundle, workers: int) -> Iterator[Front]:
    """The web front end, ready."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "elude.handlers.web", str(bundle.root), "--port", str(port)]
    environment = os.environ | {"ELUDE_TOKEN": KEY, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen([*command, "--workers", str(workers)], env=environment)
    try:
        front = Front(port, KEY, process.pid)
        _wait_until_ready(front)
        yield front
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(front: Front) -> None:
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit("The web front end did not start.")
        time.sleep(0.2)


@contextmanager
def torchserve(archive: Path, workers: int) -> Iterator[Front]:
    """TorchServe, ready."""
    with UncheckedServer(archive, ServerSettings(workers=workers, batch_size=8, batch_delay_ms=2)) as server:
        yield Front(server.inference_port, server.key("inference"), server.pid)


def cost(bundle: Bundle, folder: Path, given: argparse.Namespace) -> None:
    """Print the table of ``predict`` on the web front end against the plain handler on TorchServe."""
    images = pictures(given.model)
    asked = {"web": requests("predict", images, bundle), "plain": requests("plain", images, bundle)}
    print("| workers | callers | requests/s web / plain | ratio | p50 ms web / plain | ratio | p99 ms web / plain |")
    print("|---|---|---|---|---|---|---|")
    for workers in given.workers:
        with web(bundle, workers) as ours, torchserve(plain_archive(bundle, folder / "plain.mar"), workers) as theirs:
            for callers in given.concurrency:
                fronts = {"web": ours, "plain": theirs}
                print(_row(fronts, asked, workers, callers, given.rounds, given.seconds), flush=True)


def _row(
    fronts: dict[str, Front], asked: dict[str, list[Request]], workers: int, callers: int, rounds: int, seconds: float
) -> str:
    connections = {name: [Caller(front) for _ in range(callers)] for name, front in fronts.items()}
    for name in fronts:
        _block(connections[name], asked[name], 2)
    rates: dict[str, list[float]] = {name: [] for name in fronts}
    halves: dict[str, list[float]] = {name: [] for name in fronts}
    latencies: dict[str, list[float]] = {name: [] for name in fronts}
    for number in range(rounds):
        for name in list(fronts)[:: 1 if number % 2 else -1]:
            seen = _block(connections[name], asked[name], seconds)
            rates[name].append(callers / float(np.mean(seen)))  # Little's law: blocks end unevenly
            halves[name].append(float(np.median(seen)))
            latencies[name] += seen
    faster, sooner = (_ratio(values["web"], values["plain"]) for values in (rates, halves))
    rate = " / ".join(f"{np.median(rates[name]):.1f}" for name in fronts)
    p50, p99 = (" / ".join(f"{1000 * np.percentile(latencies[name], q):.1f}" for name in fronts) for q in (50, 99))
    return f"| {workers} | {callers} | {rate} | {faster} | {p50} | {sooner} | {p99} |"


def _block(callers: Sequence[Caller], asked: Sequence[Request], seconds: float) -> list[float]:
    for caller in callers:
        caller.connect()
    return block(callers, asked, seconds)[1]  # type: ignore[arg-type]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = np.array(ours) / np.array(theirs)
    low, high = np.percentile(ratios, [25, 75])
    return f"{np.median(ratios):.3f} ({low:.2f}–{high:.2f})"


def memory(bundle: Bundle, folder: Path, given: argparse.Namespace) -> None:
    """Print one row: memory at the begin and end, and the slope of a line through all but the first fifth."""
    images = pictures(given.model)
    operations = ("predict", "inspect", "steer", "steer by new edits", "steer by a preset", "steer and compare")
    asked = [request for operation in operations for request in requests(operation, images, bundle)[:50]]
    archive = package(bundle, folder, name="elude", version="1.0")
    running = web(bundle, 2) if given.front == "web" else torchserve(archive, 2)
    with running as front:
        stopped, count = threading.Event(), itertools.count()
        threads = [
            threading.Thread(target=_ask_steadily, args=(front, asked, given.rate / 4, stopped, count))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        begin, minutes, used = time.monotonic(), list[float](), list[float]()
        while (now := (time.monotonic() - begin) / 60) < given.minutes:
            minutes.append(now)
            used.append(front.memory())
            time.sleep(5)
        stopped.set()
        for thread in threads:
            thread.join()
    settled = len(used) // 5
    x, y = np.array(minutes[settled:]), np.array(used[settled:])
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    print(
        f"| {given.front} | {next(count)} | {used[0]:.0f} | {y[0]:.0f} | {y[-1]:.0f} | "
        f"{slope:+.3f} ± {1.96 * covariance[0, 0] ** 0.5:.3f} |"
    )


def _ask_steadily(
    front: Front, asked: Sequence[Request], rate: float, stopped: threading.Event, count: Iterator[int]
) -> None:
    """Ask at most that often per second, over one connection."""
    caller = Caller(front)
    while not stopped.is_set():
        begin = time.monotonic()
        try:
            caller.seconds(asked[next(count) % len(asked)])
        except (http.client.RemoteDisconnected, ConnectionError):  # this program slept, and the server hung up
            caller = Caller(front)
        stopped.wait(max(0.0, begin + 1 / rate - time.monotonic()))


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "memory"))
    parser.add_argument("--model", default="embedded", help="embedded, or a timm model with random weights")
    parser.add_argument("--bundle", type=Path, help="one that an earlier run made of the same model")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a block")
    parser.add_argument("--front", choices=("web", "torchserve"), default="web")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=20, help="requests per second, at most")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a server never outlives the benchmark
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready = given.bundle is not None and given.bundle.exists()
        bundle = Bundle.open(given.bundle) if ready else make_bundle(given.model, given.bundle or folder / "bundle")
        {"cost": cost, "memory": memory}[given.what](bundle, folder, given)


if __name__ == "__main__":
    main()
