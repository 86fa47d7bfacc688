"""Time and peak memory of splitting one unit: this project's way against the plain reference, on the same activations.

The reference is scikit-learn's HDBSCAN with its defaults, but for ``min_cluster_size`` and leaf
selection, on the full normalised contribution vectors; ``brute`` is the same with
``algorithm="brute"``, its quickest setting here. All ways share what comes before and after
(representatives, margin), which is part of the time. Each measurement is a process of its own with
one thread; times are CPU times, so that other work on the machine does not count; memory is the
peak beyond what the inputs take.

    python -m benchmarks.method.speed --photos FOLDER [FOLDER …] [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import elude.exporter.splitting.hdbscan
from benchmarks.method.fetch import cache
from elude.exporter.splitting.split_unit import SplitSettings, split_unit

WAYS = ("reference", "brute", "projected")


def measure(way: str, vectors_file: Path, min_cluster_size: int) -> dict[str, float]:
    """CPU seconds, wall seconds, peak bytes and the number of sub-units of one unit; run in a process of its own."""
    vectors = np.load(vectors_file)
    settings = SplitSettings(len(vectors), min_cluster_size, clusterer="projected" if way == "projected" else "hdbscan")
    split_unit(
        vectors[:200], 0.0, SplitSettings(200, 20, clusterer=settings.clusterer)
    )  # imports and first calls do not count
    if way == "reference":
        _use_library_defaults()
    before = _peak(reset=True)
    cpu, wall = time.process_time(), time.perf_counter()
    split = split_unit(vectors, 0.0, settings)
    used = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    memory = _peak() - before
    return used | {"bytes": memory, "parts": 1 if split is None else len(split.representatives)}


def _peak(*, reset: bool = False) -> int:
    """Largest resident memory in bytes since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _use_library_defaults() -> None:
    """Let the clusterer ``hdbscan`` choose its algorithm as the library does by default."""

    library = elude.exporter.splitting.hdbscan.HDBSCAN
    elude.exporter.splitting.hdbscan.HDBSCAN = lambda **settings: library(**(settings | {"algorithm": "auto"}))


def _prepare(photos: list[Path], sizes: list[int], units: list[int]) -> dict[tuple[int, int], Path]:
    """One file of contribution vectors per size and unit, of the photographs' benchmark."""
    from benchmarks.method.photographs import LAYERS, materials, photographs
    from elude.exporter.splitting.contributions import contributions, layer_weight, top_rows

    folder = cache() / "speed"
    folder.mkdir(exist_ok=True)
    files = {(size, unit): folder / f"{size}-{unit}.npy" for size in sizes for unit in units}
    if not all(path.exists() for path in files.values()):
        material = materials(LAYERS, *photographs(photos, 2_500, 2_000))[LAYERS[0]]
        which, instances = material.layer, material.probe
        for (size, unit), path in files.items():
            rows = top_rows(instances.z[:, unit], size)
            np.save(path, contributions(instances.q, layer_weight(which), unit, rows)[:])
    return files


def main() -> None:
    """Measure all sizes and keep ``results/speed.json`` in the cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="the smallest size only")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FILE", "MIN_CLUSTER_SIZE"))
    arguments = parser.parse_args()
    if arguments.one:
        way, file, smallest = arguments.one
        print(json.dumps(measure(way, Path(file), int(smallest))))
        return
    # The slow ways see fewer units at the larger sizes.
    plan = {2_000: {"reference": 3, "brute": 3, "projected": 5}}
    if not arguments.quick:
        plan |= {
            4_000: {"reference": 2, "brute": 3, "projected": 5},
            8_000: {"reference": 2, "brute": 2, "projected": 5},
            16_000: {"projected": 3},
            32_000: {"projected": 1},
        }
    units = [17, 99, 180, 250, 333]
    files = _prepare(arguments.photos, list(plan), units)
    rows = []
    for size, counts in plan.items():
        for index, unit in enumerate(units):
            for way in (way for way in WAYS if index < counts.get(way, 0)):
                command = (
                    sys.executable,
                    "-m",
                    "benchmarks.method.speed",
                    "--one",
                    way,
                    str(files[size, unit]),
                    str(size // 100),
                )
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rows.append({"way": way, "size": size, "unit": unit} | row)
                print(rows[-1], flush=True)
                (cache() / "results").mkdir(exist_ok=True)
                (cache() / "results" / "speed.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
