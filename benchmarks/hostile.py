"""What hostile requests cost a server, and what those who ask beside them notice.

    python -m benchmarks.hostile [--front torchserve web] [--model embedded] [--rounds 6] [--seconds 6]

Cost: every hostile image and body of the tests, one by one: processor time and memory of the server's processes.
Beside: one client asks for predictions, one after the other, in blocks in which it is alone and in blocks in which
another process sends the hostile ones as fast as they are answered. The blocks alternate, and each figure is a
median over pairs of neighbours, so that what else the machine does hits both alike.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.serving import make_bundle, pictures, processor_ms
from elude.handlers.torchserve.server import Server, ServerSettings
from elude.model_store.archive import package

SENDER = """
import http.client, json, select, sys

port, key, model, requests = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
count = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    path, kind = requests[count % len(requests)]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
    connection.request("POST", f"/predictions/{model}", open(path, "rb").read(), headers)
    connection.getresponse().read()
    connection.close()
    count += 1
    if count == 1:
        print(flush=True)
print(count, flush=True)
"""
TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "attacks")]

from _fronts import MODEL, Web, connect  # noqa: E402
from _hostile import KINDS  # noqa: E402
from _refused import refused  # noqa: E402
from _serving import Ask  # noqa: E402

Front = Server | Web
MIB = 2**20


@dataclass(frozen=True)
class Stored:
    """A hostile request; its body lies in a file, as all together take most of a gigabyte."""

    name: str
    body: Path
    kind: str

    def ask(self) -> Ask:
        return Ask("predictions", self.body.read_bytes(), self.kind, 0, b"")


def stored(folder: Path) -> list[Stored]:
    """All of them; those that a folder holds already are not made again."""
    index = folder / "index.json"
    if index.exists():
        return [Stored(name, folder / str(i), kind) for i, (name, kind) in enumerate(json.loads(index.read_text()))]
    images = ((name, data, "image/png") for kind in KINDS.values() for name, data in kind())
    bodies = ((f"request: {name}", body, kind) for name, (body, kind) in refused().items())
    requests = []
    for number, (name, data, kind) in enumerate([*images, *bodies]):
        requests.append(Stored(name, folder / str(number), kind))
        requests[-1].body.write_bytes(data)
    index.write_text(json.dumps([(request.name, request.kind) for request in requests]))
    return requests


@contextmanager
def running(front: str, model: str, folder: Path, workers: int, delay_ms: int = 1) -> Iterator[Front]:
    """A front end that serves the model."""
    bundle = make_bundle(model, folder / "bundle")
    if front == "web":
        web = Web(bundle.root, workers)
        try:
            yield web
        finally:
            web.stop()
    else:
        archive = package(bundle, folder, name=MODEL, version="1.0")
        with Server(archive, ServerSettings(workers=workers, batch_delay_ms=delay_ms)) as server:
            yield server


def processes(front: Front) -> list[int]:
    """The server and all that it started."""
    parent = psutil.Process(front.pid if isinstance(front, Server) else front.pids()[0])
    return [parent.pid, *(child.pid for child in parent.children(recursive=True))]


def pythons(front: Front) -> list[int]:
    """Those of them in which models answer: Java's heap grows and shrinks as it likes."""
    return [pid for pid in processes(front) if psutil.Process(pid).name() != "java"]


def memory(pid: int, line: str) -> float:
    """MiB of a process, by the name of a line of its status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(text for text in lines if text.startswith(line)).split()[1]) / 1024


def cost(front: Front, requests: Sequence[Stored]) -> list[str]:
    """A row: count, dearest, largest peak, growth."""
    watched, answering = processes(front), pythons(front)
    resident = {pid: memory(pid, "VmRSS") for pid in answering}
    seconds, peaks, statuses = {}, {}, []
    for request in requests:
        for pid in answering:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the high-water mark begins anew
        before, begin = {pid: memory(pid, "VmRSS") for pid in answering}, processor_ms(watched)
        connection = connect(front)
        statuses.append(connection.send(request.ask())[0])
        connection.close()
        time.sleep(0.02)  # what the server does after its answer counts too
        seconds[request.name] = (processor_ms(watched) - begin) / 1000
        peaks[request.name] = max(memory(pid, "VmHWM") - before[pid] for pid in answering)
    assert processes(front)[: len(watched)] == watched
    grown = max(memory(pid, "VmRSS") - resident[pid] for pid in answering)
    dearest, largest = max(seconds, key=seconds.__getitem__), max(peaks, key=peaks.__getitem__)
    answered = sum(status == 200 for status in statuses)
    odd = sum(status >= 500 for status in statuses)
    median = float(np.median(list(seconds.values())))
    return [
        f"{len(requests)} ({answered} answered, {odd} 5xx)",
        f"{median:.3f}",
        f"{seconds[dearest]:.2f} ({dearest})",
        f"{peaks[largest]:.0f} ({largest})",
        f"{grown:.0f}",
    ]


class Sender:
    """Sends all of them again and again, from a process of its own, until it is stopped."""

    def __init__(self, front: Front, requests: Sequence[Stored]) -> None:
        content = [(str(request.body), request.kind) for request in requests]
        command = [sys.executable, "-c", SENDER, str(front.inference_port), front.key("inference"), MODEL]
        self._process = subprocess.Popen(
            [*command, json.dumps(content)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # the first was answered

    def stop(self) -> int:
        """How many were answered."""
        return int(self._process.communicate("")[0])


def block(front: Front, images: Sequence[bytes], seconds: float) -> list[float]:
    """Latencies of a client that asks for predictions, with a pause of 5 ms after each."""
    connection, latencies = connect(front), []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        status, body = connection.send(Ask("predictions", images[len(latencies) % len(images)], "image/png", 200, b""))
        latencies.append(time.perf_counter() - begin)
        assert status == 200, body[:300]
        time.sleep(0.005)
    return latencies


def beside(front: Front, images: Sequence[bytes], requests: Sequence[Stored], rounds: int, seconds: float) -> list[str]:
    """A row: usual p50 and p99, those beside hostile requests, and the ratio of the p99."""
    sent, pairs = 0, []
    block(front, images, 2)
    for number in range(rounds):
        latencies: dict[bool, list[float]] = {}
        for hostile in (False, True) if number % 2 == 0 else (True, False):
            sender = Sender(front, [*requests[number * 37 :], *requests[: number * 37]]) if hostile else None
            latencies[hostile] = block(front, images, seconds)
            sent += 0 if sender is None else sender.stop()
        pairs.append((latencies[False], latencies[True]))
    ratios = [float(np.percentile(hostile, 99) / np.percentile(usual, 99)) for usual, hostile in pairs]
    figures = [
        1000 * float(np.median([np.percentile(pair[which], q) for pair in pairs])) for which in (0, 1) for q in (50, 99)
    ]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return [str(sent), *(f"{figure:.1f}" for figure in figures), f"{middle:.2f} ({low:.2f}–{high:.2f})"]


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--front", nargs="+", default=["torchserve", "web"], choices=["torchserve", "web"])
    parser.add_argument("--model", nargs="+", default=["embedded"], help="embedded, or timm models with random weights")
    parser.add_argument("--workers", type=int, default=2, help="of TorchServe; the web front end has one")
    parser.add_argument("--delay", type=int, default=ServerSettings.batch_delay_ms, help="of TorchServe's batches, ms")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a block")
    parser.add_argument("--skip-cost", action="store_true")
    parser.add_argument("--bodies", type=Path, help="a folder that keeps the hostile bodies for the next run")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives the benchmark
    with tempfile.TemporaryDirectory() as name:
        requests = stored(given.bodies or Path(name))
        for model in given.model:
            for front in given.front:
                with (
                    tempfile.TemporaryDirectory() as folder,
                    running(
                        front, model, Path(folder), given.workers if front == "torchserve" else 1, given.delay
                    ) as server,
                ):
                    connect(server).send(Ask("predictions", pictures(model)[0], "image/png", 200, b""))
                    if not given.skip_cost:
                        print(f"| cost | {front} | {model} | {' | '.join(cost(server, requests))} |", flush=True)
                    row = beside(server, pictures(model), requests, given.rounds, given.seconds)
                    print(f"| beside | {front} | {model} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
