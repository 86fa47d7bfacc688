"""How time and memory of splitting one unit grow with the number of its instances.

Synthetic activations stand in for size: 24 directions with noise, two instances of each picture, in
files that are mapped as those of an export are. Each measurement is ``split_layer`` of a layer
of one unit, in a process of its own with one thread. Times are CPU times; memory is the peak of what is
anonymous (RssAnon), beyond what the process had before: pages of the mapped files are the system's
cache and can be dropped. What is done once per layer (the picture space) is told apart by a second
layer, of three units.

    python -m benchmarks.method.growth [--inputs 1536] [--sizes 8000 16000 64000 200000 400000]
        [--ways pictures projected] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.method import harness
from benchmarks.method.fetch import cache
from elude.exporter.models.layers import Layer
from elude.exporter.probing.probe import Probe
from elude.exporter.splitting.split_layer import split_layer
from elude.exporter.splitting.split_unit import SplitSettings

DIRECTIONS, PER_PICTURE, CHUNK, UNITS = 24, 2, 8_192, 3
WAYS = {"pictures": ("signed", "pictures"), "projected": ("literal", "projected")}  # margin rule, clusterer


def synthetic(count: int, inputs: int) -> Path:
    """A folder with ``q``, ``z``, ``image`` and ``pictures`` of that many instances, written at the first call."""
    folder = cache() / "growth" / f"{count}-{inputs}"
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    directions = rng.random((DIRECTIONS, inputs), np.float32) ** 4
    q = np.lib.format.open_memmap(folder / "q.npy", mode="w+", dtype=np.float32, shape=(count, inputs, 1))
    kind = np.repeat(rng.integers(0, 2 * DIRECTIONS, count // PER_PICTURE), PER_PICTURE)  # half are of no direction
    for start in range(0, count, CHUNK):
        some = kind[start : start + CHUNK]
        rows = rng.random((len(some), inputs), np.float32)
        rows[some < DIRECTIONS] *= 0.3
        rows[some < DIRECTIONS] += directions[some[some < DIRECTIONS]]
        q[start : start + CHUNK, :, 0] = rows
    np.save(folder / "z.npy", np.asfortranarray(rng.random((count, UNITS), np.float32)))
    np.save(folder / "pictures.npy", q[:, :, 0].reshape(count // PER_PICTURE, PER_PICTURE, inputs).mean(axis=1))
    (folder / "done").touch()
    return folder


def measure(folder: Path, way: str, units: int) -> dict[str, float]:
    """CPU seconds, peak bytes and sub-units of a layer; run in a process of its own."""
    torch.set_num_threads(1)
    q, z, pictures = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("q", "z", "pictures"))
    count, inputs = q.shape[:2]
    image = np.repeat(np.arange(count // PER_PICTURE), PER_PICTURE)
    module = nn.Linear(inputs, units)
    with torch.no_grad():
        module.weight.uniform_(0.5, 1, generator=torch.Generator().manual_seed(0))
    layer = Layer("synthetic", "linear", module, units, inputs, 1, 1)
    rule, clusterer = WAYS[way]
    settings = SplitSettings(count, max(count // 250, 5), rule, clusterer)
    probe = Probe(layer.name, q, z[:, :units], image, np.tile(np.arange(PER_PICTURE), len(pictures)), pictures)
    with _Peak() as peak:
        start = time.process_time()
        split, _ = split_layer(layer, probe, settings)
        seconds = time.process_time() - start
    return {"cpu": seconds, "bytes": peak.grown, "parts": split.sub_units}


def _apart(folder: Path, way: str, units: int) -> dict[str, float]:
    command = (sys.executable, "-m", "benchmarks.method.growth", "--one", str(folder), way, str(units))
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


class _Peak:
    """Largest anonymous memory of this process while inside, looked at every 5 ms."""

    grown = 0

    def __enter__(self) -> _Peak:
        self._before, self._over = _anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.grown = max(self.grown, _anonymous() - self._before)


def _anonymous() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> None:
    """Measure, print a table and the exponents, and keep ``results/growth.json`` in the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_536)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8_000, 16_000, 64_000, 200_000, 400_000])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "WAY", "UNITS"))
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(Path(arguments.one[0]), arguments.one[1], int(arguments.one[2]))))
        return
    rows, medians = [], {}
    print("| k | way | CPU s per unit | once per layer | peak memory, MB |\n|---|---|---|---|---|")
    for size in arguments.sizes:
        folder = synthetic(size, arguments.inputs)
        for way in arguments.ways:
            tries = [[_apart(folder, way, units) for units in (1, UNITS)] for _ in range(arguments.repeats)]
            unit = float(np.median([(many["cpu"] - one["cpu"]) / (UNITS - 1) for one, many in tries]))
            layer = float(np.median([one["cpu"] for one, _ in tries])) - unit
            peak = float(np.median([one["bytes"] for one, _ in tries]))
            medians.setdefault(way, []).append(unit)
            rows.append({"size": size, "way": way, "unit": unit, "layer": layer, "bytes": peak, "tries": tries})
            print(f"| {size:,} | {way} | {unit:.2f} | {max(layer, 0):.1f} | {peak / 1e6:.0f} |", flush=True)
            harness.save(f"growth-{arguments.inputs}", rows)
    for way, seconds in medians.items():
        print(f"{way}: exponent {exponent(arguments.sizes, seconds):.2f}")


if __name__ == "__main__":
    main()
