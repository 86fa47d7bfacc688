"""Is there a better rule for the shares than the paper's, at the same number of sub-units? Candidates are judged
against their own control.

A rule can raise the MS-Score without any help of the clusters: it does so with labels that are
shuffled over the instances too. What the clusters add is the difference to the same rule with
shuffled labels. Besides the fixed rules there is a choice for each unit, made on instances that the
split has not seen: of the paper's rule and ``signed`` the one whose separation of held-out
instances exceeds that of its own shuffled control by more. Its fair control is ``same rules``: the
rules that the true labels chose, applied to shuffled labels. Where shuffled labels choose for
themselves they choose ``signed`` less often, which lowers their score for a reason that is not the
clusters.

    python -m benchmarks.method.better [--units 64] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.method import harness
from benchmarks.method.activations import layer, probe
from benchmarks.method.variants import TOKENS, TOP_ROWS, Made, exact
from elude.exporter.splitting.contributions import contributions, top_rows
from elude.exporter.splitting.hdbscan import Clusters, representatives
from elude.exporter.splitting.margin import MARGINS, winning_masks
from elude.exporter.splitting.split_unit import separation

RULES = ("literal", "signed")
SAME = "chosen, shuffled, same rules"
Vectors = NDArray[np.float32]


def gain(vectors: Vectors, clusters: Clusters, bias: float, rule: str, generator: np.random.Generator) -> float:
    """Separation of held-out instances by the rule's masks, less that by the same rule from shuffled labels.

    Every second instance makes the masks, the others judge them, by their true clusters.
    """
    seen, unseen = np.arange(len(vectors)) % 2 == 0, np.arange(len(vectors)) % 2 == 1
    judge = Clusters(clusters.labels[unseen], clusters.probabilities[unseen])
    result = []
    for labels in (clusters.labels[seen], generator.permutation(clusters.labels[seen])):
        fit = Clusters(labels, (labels >= 0).astype(np.float32))
        if (
            len(np.unique(labels[labels >= 0])) < clusters.count
            or len(np.unique(judge.labels[judge.labels >= 0])) < clusters.count
        ):
            return -np.inf
        tried = np.unique(winning_masks(representatives(vectors[seen], fit), MARGINS, rule), axis=0)
        best = tried[separation(vectors[seen], fit, bias, tried).argmax()]
        result.append(separation(vectors[unseen], judge, bias, best[None])[0])
    return float(result[0] - result[1])


def run(seed: int, chosen: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Scores of the rules, of the choice among them, and of the same with shuffled labels."""
    which, bias = layer(), harness.bias()
    instances, generator = probe(TOKENS, seed, which), np.random.default_rng(seed)
    names = [f"{rule}{end}" for rule in (*RULES, "chosen") for end in ("", ", shuffled")] + [SAME]
    made = {name: Made([], [], []) for name in names}
    signed = {"chosen": 0, "chosen, shuffled": 0}
    for unit in chosen:
        vectors = contributions(which, instances, unit, top_rows(instances.z[:, unit], TOP_ROWS))
        clusters = exact(vectors, seed)
        shuffled = Clusters(generator.permutation(clusters.labels), clusters.probabilities)
        rules = []
        for end, labels in (("", clusters), (", shuffled", shuffled)):
            gains = [
                gain(vectors, labels, float(bias[unit]), rule, generator) if labels.count > 1 else 0.0 for rule in RULES
            ]
            best = RULES[int(np.argmax(gains))]
            rules.append(best)
            signed[f"chosen{end}"] += best == "signed"
            for name, rule in [*zip(RULES, RULES, strict=True), ("chosen", best)]:
                made[f"{name}{end}"].add(vectors, labels, float(bias[unit]), rule, which.inputs)
        made[SAME].add(vectors, shuffled, float(bias[unit]), rules[0], which.inputs)
    splits = {name: of.split(name) for name, of in made.items()}
    found = harness.peaks({name: harness.family(split, chosen) for name, split in splits.items()})
    rows = {
        name: harness.summary(harness.score(of))
        | harness.redundancy(of, splits[name].parent)
        | {"expansion": splits[name].expansion_factor}
        for name, of in found.items()
    }
    for name, count in signed.items():
        rows[name]["signed"] = count / len(chosen)
    harness.save(f"better-{seed}", rows)
    return rows


def main() -> None:
    """Run all seeds; keep ``results/better-SEED.json`` in the cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for name, row in run(seed, harness.units(arguments.units)).items():
            print(seed, f"{name:20s}", *(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
