"""What more pictures, more tokens of each, or more instances per unit buy: the default's split, judged as in
benchmarks/method/photographs.py.

    python -m benchmarks.method.more --photos FOLDER [FOLDER …] [--layer vit:blocks.10.mlp.fc2] [--units 96]
        [--probing 2500] [--held-out 2000] [--cells 500x2 500x8 500x32 …]

A cell is PICTURESxTOKENS, with ``:K`` behind it for another number of instances per unit than the
default, and ``:K:M`` for another smallest cluster too.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.method import harness
from benchmarks.method.held_out import scores
from benchmarks.method.photographs import (
    Material,
    materials,
    of_units,
    photographs,
    some_tokens,
    sub_units,
)
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.probing.probe import Probe
from elude.exporter.splitting.split_layer import split_layer

CELLS = [f"{pictures}x{tokens}" for pictures in (500, 1_000, 2_500) for tokens in (2, 8, 32)]
COLUMNS = ("k", "smallest", "expansion", "own", "centred", "external", "purity", "distinct", "visible", "seconds")


def some_pictures(probe: Probe, count: int) -> Probe:
    """The instances of ``count`` pictures, drawn with a fixed seed."""
    pictures, tokens = len(probe.pictures), len(probe.z) // len(probe.pictures)
    drawn = np.sort(np.random.default_rng(0).permutation(pictures)[:count])
    rows = (drawn[:, None] * tokens + np.arange(tokens)).ravel()
    image = np.repeat(np.arange(len(drawn)), tokens)
    return Probe(probe.layer, probe.q[rows], probe.z[rows], image, probe.token[rows], np.asarray(probe.pictures)[drawn])


def measure(material: Material, cell: str, units: int) -> dict[str, float]:
    """One cell."""
    size, *changes = cell.split(":")
    pictures, tokens = map(int, size.split("x"))
    chosen = np.sort(np.random.default_rng(0).choice(material.layer.units, units, replace=False))
    layer = of_units(material.layer, chosen)
    probe = some_tokens(some_pictures(material.probe, pictures), tokens, 0)
    plan = ExportSettings(**dict(zip(("top_k", "min_cluster_size"), map(int, changes), strict=False)))
    settings = plan.for_instances(len(probe.z), layer.name)
    start = time.process_time()
    split, _ = split_layer(layer, replace(probe, z=probe.z[:, chosen]), settings)
    seconds = (time.process_time() - start) / units
    return scores(sub_units(layer, split), material.held) | {
        "k": settings.top_k,
        "smallest": settings.min_cluster_size,
        "expansion": split.expansion_factor,
        "seconds": seconds,
    }


def main() -> None:
    """Measure the cells, print a row for each, and keep ``results/more.json`` in the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--layer", default="vit:blocks.10.mlp.fc2", metavar="NETWORK:LAYER")
    parser.add_argument("--units", type=int, default=96)
    parser.add_argument("--probing", type=int, default=2_500)
    parser.add_argument("--held-out", type=int, default=2_000)
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="PICTURESxTOKENS[:K[:M]]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    probing, held = photographs(arguments.photos, arguments.probing, arguments.held_out)
    material = materials([arguments.layer], probing, held)[arguments.layer]
    rows = {}
    print(f"| pictures × tokens | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 1)}|")
    for cell in arguments.cells:
        rows[cell] = measure(material, cell, arguments.units)
        print(f"| {cell} | {' | '.join(f'{rows[cell][column]:.3g}' for column in COLUMNS)} |", flush=True)
        harness.save("more", rows)


if __name__ == "__main__":
    main()
