"""The mixed load of the tests on two checkouts of this project, in turn: wrong answers, errors, latencies.

    python -m benchmarks.load --before CHECKOUT [--after CHECKOUT] [--front torchserve web] [--requests 10000]

Each checkout starts its own server with its own model, made by the same code of its tests, and states the answers that
its service gives to each request alone. Blocks of the same size go to the one and to the other, so that what else
the machine does hits both alike; ratios are medians over pairs of neighbouring blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from _serving import Ask, Connection, load, wrong  # noqa: E402

# Runs in a checkout: version 0.1 named its packages without ``elude.`` in front.
CHILD = """
import importlib, json, pickle, sys
from pathlib import Path
from _fronts import MODEL, Server, Web
from _serving import make_bundle, mixed

def module(name):
    try:
        return importlib.import_module("elude." + name)
    except ImportError:
        return importlib.import_module(name)

front, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
bundle = make_bundle(folder / "b")
service = module("handlers.service").Service.open(bundle.root, model=MODEL)
asks = [(ask.path, ask.body, ask.kind, ask.status, ask.answer) for ask in mixed(service, count, seed=count)]
(folder / "asks").write_bytes(pickle.dumps(asks))
if front == "web":
    server = Web(bundle.root)
else:
    archive = module("model_store.archive").package(bundle, folder, name=MODEL, version="1.0")
    settings = module("handlers.torchserve.server").ServerSettings(workers=2, batch_size=8, batch_delay_ms=5)
    server = Server(archive, settings)
    server.__enter__()
print("READY", json.dumps({"port": server.inference_port, "key": server.key("inference"), "model": MODEL}), flush=True)
sys.stdin.read()
server.stop()
"""


class Checkout:
    """A server of a checkout, in a process of its own."""

    def __init__(self, root: Path, front: str, count: int, folder: Path) -> None:
        environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1"}
        folder.mkdir()
        command = [sys.executable, "-c", CHILD, front, str(count), str(folder)]
        self._process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = next((line for line in self._process.stdout if line.startswith("READY ")), None)
        if line is None:
            raise SystemExit(f"The server of {root} did not start.")
        self._address: dict[str, Any] = json.loads(line.removeprefix("READY "))
        self.asks = [Ask(*values) for values in pickle.loads((folder / "asks").read_bytes())]
        self.seconds: list[list[float]] = []
        self.faults: list[str] = []
        self.statuses: list[int] = []

    def block(self, asks: Sequence[Ask], concurrency: int) -> None:
        """Send them all; notes the time of each, and what was wrong."""
        address = self._address
        answers, seconds = load(
            asks, concurrency, lambda: Connection(address["port"], address["key"], address["model"]).send
        )
        self.seconds.append(seconds)
        self.statuses += [status for status, _ in answers]
        for ask, (status, body) in zip(asks, answers, strict=True):
            if fault := wrong(ask, status, body):
                self.faults.append(fault)

    def stop(self) -> None:
        self._process.communicate("")


def compare(front: str, checkouts: Sequence[Path], count: int, blocks: int, concurrency: int) -> list[str]:
    """Rows of before and after, and the ratios of p50 and p99."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        both = []
        for number, root in enumerate(checkouts):
            both.append(Checkout(root, front, count, Path(name, str(number))))
            stack.callback(both[-1].stop)
        for checkout in both:  # what is slow only once
            checkout.block(checkout.asks[:200], concurrency)
            checkout.seconds.clear()
            checkout.statuses.clear()
        size = count // blocks
        for number in range(blocks):
            for checkout in both if number % 2 == 0 else both[::-1]:
                checkout.block(checkout.asks[number * size : (number + 1) * size], concurrency)
    rows = []
    for what, checkout in zip(("before", "after"), both, strict=True):
        p50, p99 = (1000 * float(np.percentile(np.concatenate(checkout.seconds), q)) for q in (50, 99))
        errors = sum(status >= 500 for status in checkout.statuses)
        cells = [front, what, len(checkout.statuses), len(checkout.faults), errors, f"{p50:.1f}", f"{p99:.1f}"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
        rows += [f"  wrong: {fault}" for fault in checkout.faults[:3]]
    ratios = []
    for q in (50, 99):
        pairs = zip(both[0].seconds, both[1].seconds, strict=True)
        values = [float(np.percentile(after, q) / np.percentile(before, q)) for before, after in pairs]
        low, middle, high = np.percentile(values, [25, 50, 75])
        ratios.append(f"{middle:.3f} ({low:.2f}–{high:.2f})")
    return [*rows, f"| {front} | after / before | | | | {ratios[0]} | {ratios[1]} |"]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=ROOT)
    parser.add_argument("--front", nargs="+", default=["torchserve", "web"], choices=["torchserve", "web"])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=32)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives the benchmark
    print("| front end | code | requests | wrong | 5xx | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|")
    for front in given.front:
        checkouts = (given.before.resolve(), given.after.resolve())
        for row in compare(front, checkouts, given.requests, given.blocks, given.concurrency):
            print(row, flush=True)


if __name__ == "__main__":
    main()
