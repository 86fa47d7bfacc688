"""Score units, sub-units, the random control and sparse autoencoders on the known factors, and print the table.

Everything is made from the training half alone: the split, the autoencoders (on the same
    instances), each feature's factor. Features are
the largest activation over the figure's tokens. Units are chosen anew by each seed; autoencoders
learn the whole layer with as many latents per unit, and as many live latents are drawn as there are
sub-units.

    python -m benchmarks.factors.run [--units 48] [--seeds 0 1 2]
    python -m benchmarks.factors.run --table
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache as cached

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.factors import scores
from benchmarks.factors.activations import TOKENS, activations
from benchmarks.factors.people import FACTORS
from benchmarks.method import harness
from benchmarks.method.fetch import cache
from benchmarks.method.model import layer
from benchmarks.method.saes import build, train
from elude.exporter.models.layers import Layer
from elude.exporter.probing.probe import Probe
from elude.exporter.splitting.contributions import contributions, layer_bias, layer_weight, top_rows
from elude.exporter.splitting.fair_control import random_control
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_unit import SplitSettings, split_unit

PER_PICTURE, TOP_ROWS, SMALLEST, STEPS = 32, 1_600, 16, 500
SAES = {"TopK SAE": "top_k", "BatchTopK SAE": "batch_top_k"}
COLUMNS = {
    "features": "features",
    "own": "own factor",
    "gap": "gap",
    "followers": "follow one",
    "mig": "MIG",
    "disentanglement": "D",
    "completeness": "C",
    "informativeness": "I",
}
FOLLOWS = 0.1  # a feature follows a factor when its gap is above this
_BLOCK = 64


@cached
def the_layer() -> Layer:
    """The layer, loaded once."""
    return layer()


@cached
def weight() -> NDArray[np.float32]:
    """float32 (units, inputs) of the layer."""
    return layer_weight(the_layer())[:, :, 0]


@cached
def bias() -> NDArray[np.float32]:
    """float32 (units,) of the layer."""
    return layer_bias(the_layer())


def units_of_seed(count: int, seed: int) -> NDArray[np.int64]:
    """A seeded choice of the layer's units, ascending."""
    return np.sort(np.random.default_rng(seed).choice(len(weight()), count, replace=False))


def family(split: LayerSplit, chosen: NDArray[np.int64]) -> harness.Family:
    """The sub-units of a split whose rows are the units ``chosen`` of the layer."""
    parent = chosen[split.parent]
    return harness.Family(
        (split.shares() * weight()[parent]).astype(np.float32), (split.omega() * bias()[parent]).astype(np.float32)
    )


def training_probe(seed: int) -> Probe:
    """Seeded figure tokens of the training pictures."""
    found, which = activations(), the_layer()
    rows = np.flatnonzero(found.half == 0)
    chosen = np.stack(
        [np.random.default_rng([seed, int(row)]).choice(TOKENS, PER_PICTURE, replace=False) for row in rows]
    )
    q = np.concatenate([found.inputs[row, tokens].astype(np.float32) for row, tokens in zip(rows, chosen, strict=True)])
    with torch.inference_mode():
        z = which.module(torch.from_numpy(q)).numpy()
    return Probe(which.name, q[:, :, None], z, np.repeat(rows, PER_PICTURE), chosen.ravel())


def split(probe: Probe, chosen: NDArray[np.int64], seed: int) -> LayerSplit:
    """The split of the chosen units, with the default rule and clusterer."""
    which, offsets = the_layer(), bias()
    weight = layer_weight(which)
    settings = SplitSettings(TOP_ROWS, SMALLEST, seed=seed)
    parts, masks, rho, means = [], [], [], []
    for unit in chosen:
        vectors = contributions(probe.q, weight, unit, top_rows(probe.z[:, unit], TOP_ROWS))
        made = split_unit(vectors, float(offsets[unit]), settings)
        parts.append(1 if made is None else len(made.representatives))
        masks.append(np.ones(which.inputs, np.uint64) if made is None else made.masks)
        rho.append(np.nan if made is None else made.rho)
        means.append(np.zeros((1, which.inputs), np.float32) if made is None else made.representatives)
    return LayerSplit(which.name, np.array(parts), np.stack(masks), np.array(rho, np.float32), np.concatenate(means))


def peaks(families: dict[str, harness.Family]) -> dict[str, NDArray[np.float32]]:
    """float32 (pictures, features) of each family: the largest activation over the figure's tokens."""
    inputs = activations().inputs
    weight = torch.from_numpy(np.concatenate([each.weight for each in families.values()]))
    bias = np.concatenate([each.bias for each in families.values()])
    blocks = []
    for start in range(0, len(inputs), _BLOCK):
        q = torch.from_numpy(inputs[start : start + _BLOCK].astype(np.float32))
        blocks.append((q @ weight.T).amax(dim=1).numpy() + bias)
    ends = np.cumsum([len(each.weight) for each in families.values()])
    return dict(zip(families, np.split(np.concatenate(blocks), ends[:-1], axis=1), strict=True))


def latents(kind: str, probe: Probe, count: int, steps: int, seed: int) -> NDArray[np.float32]:
    """The same of an autoencoder of the whole layer."""
    data = torch.from_numpy(probe.z)
    mean = data.mean(0)
    length = (data - mean).norm(dim=1).mean() / data.shape[1] ** 0.5
    model = build(kind, count, (data - mean) / length, seed)
    train(kind, model, (data - mean) / length, steps, seed)
    inputs, which, blocks = activations().inputs, the_layer(), []
    with torch.inference_mode():
        for start in range(0, len(inputs), _BLOCK):
            z = which.module(torch.from_numpy(inputs[start : start + _BLOCK].astype(np.float32)))
            codes = model.encode(((z - mean) / length).flatten(0, 1))[1]
            blocks.append(codes.reshape(len(z), TOKENS, -1).amax(dim=1).numpy())
    return np.concatenate(blocks)


def judge(values: NDArray[np.float32], seed: int) -> dict[str, object]:
    """All scores of one family."""
    found = activations()
    training = found.half == 0
    bins = scores.binned(values, training)
    known, judged = (scores.relevance(bins[which], found.factors[which]) for which in (training, ~training))
    each = scores.single(known, judged)
    importance, accuracy = scores.importances(values, found.factors, training, seed)
    disentanglement, completeness = scores.dci(importance)
    gaps = scores.mig(known, judged)
    return {
        "features": values.shape[1],
        "own": float(each["own"].mean()),
        "gap": float(each["gap"].mean()),
        "followers": float((each["gap"] > FOLLOWS).mean()),
        "mig": float(gaps.mean()),
        "disentanglement": disentanglement,
        "completeness": completeness,
        "informativeness": float(accuracy.mean()),
        "accuracy": dict(zip(FACTORS, accuracy.tolist(), strict=True)),
        "prefer": {name: float((each["factor"] == i).mean()) for i, name in enumerate(FACTORS)},
        "mean relevance": dict(zip(FACTORS, judged.mean(axis=0).tolist(), strict=True)),
        "best": {name: float(judged[known[:, i].argmax(), i]) for i, name in enumerate(FACTORS)},
    }


def run(seed: int, units: int, steps: int) -> dict[str, dict[str, object]]:
    """All families for one seed."""
    chosen, probe = units_of_seed(units, seed), training_probe(seed)
    made = split(probe, chosen, seed)
    print(seed, f"split, EF {made.expansion_factor:.2f}", flush=True)
    everything = {
        "units": harness.Family(weight()[chosen], bias()[chosen]),
        "all units": harness.Family(weight(), bias()),
        "sub-units": family(made, chosen),
        "sub-units, permuted masks": family(random_control(made, seed), chosen),
    }
    values = peaks(everything)
    for name, kind in SAES.items():
        codes = latents(kind, probe, round(made.expansion_factor * len(weight())), steps, seed)
        live = np.flatnonzero(codes[activations().half == 0].max(axis=0) > 0)
        drawn = np.random.default_rng(seed).permutation(live)[: made.sub_units]
        values[name] = codes[:, np.sort(drawn)]
    rows = {}
    for name, each in values.items():
        rows[name] = judge(each, seed)
        print(seed, name, {key: value for key, value in rows[name].items() if key in COLUMNS}, flush=True)
    rows["sub-units"]["expansion"] = made.expansion_factor
    return rows


def table() -> str:
    """Markdown of all seeds in the cache: mean ± sample standard deviation."""
    runs = [json.loads(path.read_text()) for path in sorted((cache() / "results").glob("factors-?.json"))]
    lines = [
        f"Seeds: {len(runs)}.",
        "",
        "| | " + " | ".join(COLUMNS.values()) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name in runs[0]:
        cells = [_cell([float(of[name][column]) for of in runs], column) for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for title, key in (
        ("Features that prefer each factor", "prefer"),
        ("Mean relevance", "mean relevance"),
        ("Best feature", "best"),
        ("Accuracy of the forest", "accuracy"),
    ):
        lines += ["", f"{title}:", "", "| | " + " | ".join(FACTORS) + " |", "|---" * (len(FACTORS) + 1) + "|"]
        for name in runs[0]:
            lines.append(
                f"| {name} | "
                + " | ".join(_cell([of[name][key][factor] for of in runs], key) for factor in FACTORS)
                + " |"
            )
    return "\n".join(lines)


def _cell(values: list[float], column: str) -> str:
    if column == "features":
        return f"{np.mean(values):.0f}"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    """Run the seeds; keep ``results/factors-SEED.json`` in the cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS, help="of training each autoencoder")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in () if arguments.table else arguments.seeds:
        begun = time.time()
        harness.save(f"factors-{seed}", run(seed, arguments.units, arguments.steps))
        print(f"{time.time() - begun:.0f} s", flush=True)
    print(table())


if __name__ == "__main__":
    main()
