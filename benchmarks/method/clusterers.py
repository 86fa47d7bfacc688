"""Do cheaper clusterers lose clusters? Clusters, noise and scores of the same units at one k, by four ways.

- ``exact``: HDBSCAN on the full normalised contribution vectors, the paper's.
- ``projected``: on 64 random dimensions, of all instances.
- ``sampled``: the product's ``projected`` at this k, that of 4,000 instances, extended to the others.
- ``PCA(16)``: on the unit's 16 principal directions.

All have the same smallest cluster and the rule ``signed``. Clusters are kept per unit in the cache, so
that a run that was stopped resumes.

    python -m benchmarks.method.clusterers --photos FOLDER [FOLDER …] [--layer vit:blocks.10.mlp.fc2]
        [--units 100] [--k 8192] [--probing 2500] [--held-out 2000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.method import harness
from benchmarks.method.fetch import cache
from benchmarks.method.harness import Family
from benchmarks.method.held_out import scores
from benchmarks.method.photographs import Material, materials, of_units, photographs, sub_units
from elude.exporter.models.layers import Layer
from elude.exporter.splitting import hdbscan
from elude.exporter.splitting.contributions import contributions, layer_bias, layer_weight, normalise, top_rows
from elude.exporter.splitting.hdbscan import Clusters, cluster_unit, representatives
from elude.exporter.splitting.hdbscan_leaves import leaf_clusters
from elude.exporter.splitting.hdbscan_reach import reach
from elude.exporter.splitting.layer_split import MAX_PARTS, LayerSplit, full_masks
from elude.exporter.splitting.margin import winning_masks

PRINCIPAL = 16
SHARE = 0.01  # smallest cluster, part of k


def exact(vectors: NDArray[np.float32], smallest: int) -> Clusters:
    return cluster_unit(vectors, min_cluster_size=smallest)


def sampled(vectors: NDArray[np.float32], smallest: int) -> Clusters:
    return cluster_unit(vectors, min_cluster_size=smallest, clusterer="projected")


def projected(vectors: NDArray[np.float32], smallest: int) -> Clusters:
    """As the product does it up to 4,000 instances."""
    before, hdbscan.SAMPLED = hdbscan.SAMPLED, len(vectors)
    try:
        return sampled(vectors, smallest)
    finally:
        hdbscan.SAMPLED = before


def principal(vectors: NDArray[np.float32], smallest: int) -> Clusters:
    """The leaves on the 16 principal directions."""
    directions = normalise(vectors)
    centred = directions - directions.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    labels, probabilities = leaf_clusters(reach(centred @ axes[:, -PRINCIPAL:], smallest), smallest)
    return Clusters(labels, probabilities.astype(np.float32))


WAYS: dict[str, Callable[[NDArray[np.float32], int], Clusters]] = {
    "exact": exact,
    "projected": projected,
    "sampled": sampled,
    "PCA(16)": principal,
}


def clusters_of(material: Material, unit: int, k: int, way: str, folder: Path) -> tuple[NDArray[np.float32], Clusters]:
    """A unit's contribution vectors, and their clusters, from the cache if they are there."""
    rows = top_rows(material.probe.z[:, unit], k)
    vectors = contributions(material.probe.q, layer_weight(material.layer), unit, rows)[:]
    path = folder / f"{k}-{unit}-{way}.npz"
    if not path.exists():
        start = time.process_time()
        made = WAYS[way](vectors, round(k * SHARE))
        seconds = time.process_time() - start
        np.savez(path, labels=made.labels, probabilities=made.probabilities, seconds=seconds)
        print(unit, way, made.count, f"{(made.labels < 0).mean():.2f} {seconds:.1f} s", flush=True)
    stored = np.load(path)
    return vectors, Clusters(stored["labels"], stored["probabilities"])


def split(material: Material, chosen: NDArray[np.int64], k: int, way: str, folder: Path) -> LayerSplit:
    """The chosen units split by ``signed``."""
    parts, masks, means = [], [], []
    for unit in chosen.tolist():
        vectors, clusters = clusters_of(material, unit, k, way, folder)
        whole = not 2 <= clusters.count <= MAX_PARTS
        centres = np.zeros((1, vectors.shape[1]), np.float32) if whole else representatives(vectors, clusters)
        mask = full_masks(np.ones(1, np.int64)).repeat(vectors.shape[1])
        masks.append(mask if whole else winning_masks(centres, np.ones(1), "signed")[0])
        parts.append(len(centres))
        means.append(centres)
    rho = np.full(len(chosen), np.nan, np.float32)
    return LayerSplit(way, np.array(parts), np.stack(masks), rho, np.concatenate(means))


def main() -> None:
    """Measure, print a table, and keep ``results/clusterers.json`` in the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--layer", default="vit:blocks.10.mlp.fc2", metavar="NETWORK:LAYER")
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--k", type=int, default=8_192)
    parser.add_argument("--probing", type=int, default=2_500)
    parser.add_argument("--held-out", type=int, default=2_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    probing, held = photographs(arguments.photos, arguments.probing, arguments.held_out)
    material = materials([arguments.layer], probing, held)[arguments.layer]
    chosen = np.sort(np.random.default_rng(0).choice(material.layer.units, arguments.units, replace=False))
    folder = cache() / "clusterers" / f"{arguments.layer.replace(':', '-')}-{probing.fingerprint()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    layer: Layer = of_units(material.layer, chosen)
    units = Family(layer_weight(material.layer)[chosen, :, 0], layer_bias(material.layer)[chosen])
    rows = {"units": scores(units, material.held)}
    with threadpool_limits(1, "blas"):
        for unit in chosen.tolist():
            for way in WAYS:
                clusters_of(material, unit, arguments.k, way, folder)
        for way in WAYS:
            made = split(material, chosen, arguments.k, way, folder)
            found = [np.load(folder / f"{arguments.k}-{unit}-{way}.npz") for unit in chosen]
            rows[way] = scores(sub_units(layer, made), material.held) | {
                "clusters": float(np.mean([max(one["labels"].max() + 1, 0) for one in found])),
                "whole": float((made.parts == 1).sum()),
                "noise": float(np.mean([(one["labels"] < 0).mean() for one in found])),
                "seconds": float(np.median([one["seconds"] for one in found])),
            }
    harness.save("clusterers", rows)
    columns = ("clusters", "whole", "noise", "own", "centred", "external", "purity", "distinct", "seconds")
    print(f"| | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.3g}' if column in row else '' for column in columns)} |")


if __name__ == "__main__":
    main()
