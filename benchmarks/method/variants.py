"""Which clusterer and which margin rule: all on the same units, instances and held-out pictures, for three choices
of tokens.

Controls: ``permuted`` splits the same parts and masks at random over the inputs
    (``elude.exporter.splitting.split_layer.random_control``); ``shuffled`` makes the
split from the same clusters with their labels shuffled over the instances, so that a rule's gain
without any cluster shows.

    python -m benchmarks.method.variants [--units 64] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.method import harness
from benchmarks.method.activations import layer, probe
from elude.exporter.splitting import hdbscan as cluster
from elude.exporter.splitting.contributions import contributions, normalise, top_rows
from elude.exporter.splitting.hdbscan import Clusters, cluster_unit, representatives
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.exporter.splitting.margin import MARGINS, winning_masks
from elude.exporter.splitting.split_layer import random_control
from elude.exporter.splitting.split_unit import separation

TOKENS, TOP_ROWS, SMALLEST = 16, 2_400, 12
Vectors = NDArray[np.float32]
Masks = NDArray[np.uint64]


def projected(size: int) -> Callable[[Vectors, int], Clusters]:
    """The clusterer ``projected`` with another number of dimensions."""

    def fit(vectors: Vectors, seed: int) -> Clusters:
        before, cluster.PROJECTED_SIZE = cluster.PROJECTED_SIZE, size
        found = cluster_unit(vectors, min_cluster_size=SMALLEST, clusterer="projected", seed=seed)
        cluster.PROJECTED_SIZE = before
        return found

    return fit


def exact(vectors: Vectors, seed: int) -> Clusters:
    """The library's HDBSCAN on the full vectors."""
    return cluster_unit(vectors, min_cluster_size=SMALLEST, clusterer="hdbscan", seed=seed)


def sampled(vectors: Vectors, seed: int) -> Clusters:
    """HDBSCAN on a quarter of the rows; any other goes to the nearest representative if as near as nine tenths of
    the members.
    """
    chosen = np.sort(np.random.default_rng(seed).choice(len(vectors), len(vectors) // 4, replace=False))
    found = cluster_unit(vectors[chosen], min_cluster_size=max(SMALLEST // 4, 2), clusterer="projected", seed=seed)
    if found.count < 2:
        return Clusters(np.full(len(vectors), -1), np.zeros(len(vectors), np.float32))
    similar = normalise(vectors) @ representatives(vectors[chosen], found).T
    nearest = similar.argmax(axis=1)
    bound = np.array([np.quantile(similar[chosen[found.labels == c], c], 0.1) for c in range(found.count)])
    inside = similar.max(axis=1) >= bound[nearest]
    inside[chosen] = False
    labels = np.where(inside, nearest, -1)
    labels[chosen] = found.labels
    probabilities = inside.astype(np.float32)
    probabilities[chosen] = found.probabilities
    return Clusters(labels, probabilities)


def gap(means: NDArray[np.float32]) -> Masks:
    """As ``winning_masks``, with the winning set that ends at the largest ratio of neighbours."""
    size = np.abs(means.astype(np.float64))
    order = np.argsort(-size, axis=0, kind="stable")
    falling = np.take_along_axis(size, order, axis=0)
    prefixes = np.bitwise_or.accumulate(np.uint64(1) << order.astype(np.uint64), axis=0)[:-1]
    ratio = np.divide(falling[1:], falling[:-1], out=np.ones_like(falling[1:]), where=falling[:-1] > 0)
    best = ratio.argmin(axis=0)[None]
    wins = np.take_along_axis(ratio, best, axis=0)[0] < MARGINS[:, None]
    return np.where(wins, np.take_along_axis(prefixes, best, axis=0)[0], full_masks(np.array([len(means)]))[0])


CLUSTERERS: dict[str, Callable[[Vectors, int], Clusters]] = {
    "hdbscan": exact,
    "projected 64": projected(64),
    "projected 128": projected(128),
    "sampled": sampled,
}
PLAN = {
    "hdbscan": ("literal", "smallest", "gap", "signed"),
    "projected 64": ("literal", "signed"),
    "projected 128": ("literal", "signed"),
    "sampled": ("literal",),
}


@dataclass
class Made:
    """One variant's split of all chosen units, growing unit by unit."""

    masks: list[Masks]
    rho: list[float]
    means: list[NDArray[np.float32]]
    seconds: float = 0

    def add(self, vectors: Vectors, clusters: Clusters, bias: float, rule: str, inputs: int) -> None:
        """Split one more unit, as ``elude.exporter.splitting.split_layer.split_unit`` does."""
        if clusters.count < 2:
            self._add(np.ones(inputs, np.uint64), np.nan, np.zeros((1, inputs), np.float32))
            return
        means = representatives(vectors, clusters)
        tried = np.unique(gap(means) if rule == "gap" else winning_masks(means, MARGINS, rule), axis=0)
        self._add(tried[int(separation(vectors, clusters, bias, tried).argmax())], 1.0, means)

    def _add(self, masks: Masks, rho: float, means: NDArray[np.float32]) -> None:
        self.masks.append(masks)
        self.rho.append(rho)
        self.means.append(means)

    def split(self, name: str) -> LayerSplit:
        """All units as one split."""
        parts = np.array([len(means) for means in self.means])
        return LayerSplit(name, parts, np.stack(self.masks), np.array(self.rho, np.float32), np.concatenate(self.means))


def run(seed: int, chosen: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Scores of all variants for one choice of tokens."""
    which, bias = layer(), harness.bias()
    instances = probe(TOKENS, seed, which)
    made: dict[tuple[str, str], Made] = {}
    generator = np.random.default_rng(seed)
    for unit in chosen:
        vectors = contributions(which, instances, unit, top_rows(instances.z[:, unit], TOP_ROWS))
        for name, rules in PLAN.items():
            begun = time.process_time()
            clusters = CLUSTERERS[name](vectors, seed)
            seconds = time.process_time() - begun
            for rule in rules:
                of = made.setdefault((name, rule), Made([], [], []))
                of.seconds += seconds
                of.add(vectors, clusters, float(bias[unit]), rule, which.inputs)
            if name == "hdbscan":
                shuffled = Clusters(generator.permutation(clusters.labels), clusters.probabilities)
                for rule in ("literal", "signed"):
                    made.setdefault((name, f"{rule}, shuffled"), Made([], [], [])).add(
                        vectors, shuffled, float(bias[unit]), rule.split(",")[0], which.inputs
                    )
    splits = {" ".join((name, rule)): of.split(name) for (name, rule), of in made.items()}
    for rule in ("literal", "signed"):
        splits[f"hdbscan {rule}, permuted"] = random_control(splits[f"hdbscan {rule}"], seed)
    families = {name: harness.family(split, chosen) for name, split in splits.items()}
    families["units"] = harness.Family(harness.weight()[chosen], bias[chosen])
    rows = {}
    for name, found in harness.peaks(families).items():
        rows[name] = harness.summary(harness.score(found)) | harness.redundancy(found, parent(splits.get(name), chosen))
        if name in splits:
            rows[name]["expansion"] = splits[name].expansion_factor
    for (name, rule), of in made.items():
        rows[f"{name} {rule}"]["seconds"] = of.seconds / len(chosen)
    np.savez(
        harness.save(f"variants-{len(chosen)}-{seed}", rows).with_suffix(".npz"),
        **{key: splits[key].representatives for key in KEPT},
        **{f"{key} parts": splits[key].parts for key in KEPT},
    )
    return rows


KEPT = ("hdbscan literal", "projected 64 literal", "projected 128 literal")


def parent(split: LayerSplit | None, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The unit that each feature belongs to."""
    return np.arange(len(chosen)) if split is None else split.parent


def main() -> None:
    """Run all seeds; keep ``results/variants-UNITS-SEED.json`` in the cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few units, one seed")
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in (0,) if arguments.quick else arguments.seeds:
        begun = time.time()
        for name, row in run(seed, harness.units(4 if arguments.quick else arguments.units)).items():
            print(seed, f"{name:32s}", *(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
        print(f"{time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
