"""Do features follow one of two known factors? Units, sub-units, their fair controls and sparse autoencoders on PACS:
7 classes × 4 styles (photograph, painting, cartoon, sketch) × 40 pictures, so class and style are independent.

Half of the pictures of each class and style is for training: the split, the autoencoders, the bins and each feature's
factor come from them alone. The other half judges. A feature's value for a picture is its largest activation over the
collected tokens. A seed chooses the units, the tokens of the split, and what is random in the autoencoders, of which
as many live latents are drawn as the default split has sub-units.

    python -m benchmarks.factors.run --pacs FOLDER [--units 96] [--seeds 3]

The folder has STYLE/CLASS/PICTURE. Prints a table; what a seed gave is kept in the cache (``results/factors-*.json``).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.factors import scores
from benchmarks.method import harness, photographs, saes
from benchmarks.method.harness import Family
from benchmarks.method.held_out import Features, HeldOut, activity
from benchmarks.method.photographs import Material
from elude.exporter.images import SUFFIXES, Entry, ImageSource
from elude.exporter.splitting.contributions import layer_bias, layer_weight
from elude.exporter.splitting.split_layer import split_layer

LAYER = "vit:blocks.10.mlp.fc2"
FACTORS = ("style", "class")
RULES = ("literal", "default")
SAES = {"TopK SAE": "top_k", "BatchTopK SAE": "batch_top_k"}
FOLLOWS = 0.1  # a feature follows a factor when its gap is above this
COLUMNS = {
    "features": "features",
    "own": "own factor",
    "gap": "gap",
    "followers": "follow one",
    "style": "prefer style",
    "mig": "MIG",
    "disentanglement": "D",
    "completeness": "C",
    "informativeness": "I",
}
Row = dict[str, float]


@dataclass(frozen=True)
class Halves:
    """The layer on both halves of the pictures.

    Attributes:
        material: the layer, its instances on the training half, and the judging half.
        training: the training half as ``HeldOut`` has it.
        codes: int64 (pictures, factors), of the training half's pictures, then the judging half's.
    """

    material: Material
    training: HeldOut
    codes: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool (pictures,): which are of the training half."""
        return np.arange(len(self.codes)) < len(self.training.classes)

    def values(self, features: Features) -> NDArray[np.float32]:
        """float32 (pictures, features): largest activations."""
        return np.concatenate([activity(features, half).peak for half in (self.training, self.material.held)])


def halves(pacs: Path) -> Halves:
    """Read and collect both halves.

    Raises:
        ValueError: styles, classes and pictures are not balanced.
    """
    cells = {folder: sorted(folder.iterdir()) for folder in sorted(pacs.glob("*/*")) if folder.is_dir()}
    entries = {
        folder: [Entry(str(path), f"{folder.parent.name}/{folder.name}", path) for path in paths]
        for folder, paths in cells.items()
        if all(path.suffix.lower() in SUFFIXES for path in paths)
    }
    if not entries or len({len(paths) for paths in entries.values()}) > 1:
        raise ValueError(f"{pacs} does not hold the same number of pictures for each style and class.")
    sources = [
        ImageSource(name, tuple(entry for cell in entries.values() for entry in cell[half::2]))
        for half, name in enumerate(("factors training", "factors judging"))
    ]
    (material,) = photographs.materials([LAYER], *sources).values()
    training = photographs.held_out(material.probe, np.zeros((len(sources[0]), 1)), sources[0])
    names = np.array([(entry.label or "").split("/") for source in sources for entry in source.entries])
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in names.T], axis=1)
    return Halves(material, training, codes)


def run(data: Halves, units: int, seed: int) -> dict[str, Row]:
    """All families for one seed."""
    layer = data.material.layer
    chosen = np.sort(np.random.default_rng(seed).choice(layer.units, units, replace=False))
    weight, bias = layer_weight(layer)[:, :, 0], layer_bias(layer)
    values = {
        "units": data.values(Family(weight[chosen], bias[chosen])),
        "all units": data.values(Family(weight, bias)),
    }
    probe = photographs.some_tokens(data.material.probe, photographs.TOKENS, seed)
    part, probe = photographs.of_units(layer, chosen), replace(probe, z=probe.z[:, chosen])
    for rule in RULES:
        settings = replace(photographs.RULES[rule], seed=seed).for_instances(len(probe.z), layer.name)
        for name, split in zip((rule, f"{rule}, shuffled"), split_layer(part, probe, settings), strict=True):
            values[name] = data.values(photographs.sub_units(part, split))
    for name, kind in SAES.items():
        values[name] = latents(data, kind, values["default"].shape[1], seed)
    rows = {}
    for name, of_family in values.items():
        rows[name] = judge(of_family, data, seed)
        print(seed, name, rows[name], flush=True)
    return rows


def latents(data: Halves, kind: str, count: int, seed: int) -> NDArray[np.float32]:
    """The largest codes of an autoencoder of the whole layer; ``count`` of its live latents."""
    outputs, held = torch.from_numpy(np.array(data.material.probe.z)), data.material.held
    codes = data.values(saes.fitted(kind, outputs, held, seed)[0])
    live = np.flatnonzero(codes[data.known].max(axis=0) > 0)
    return codes[:, np.sort(np.random.default_rng(seed).permutation(live)[:count])]


def judge(values: NDArray[np.float32], data: Halves, seed: int) -> Row:
    """All scores of one family."""
    bins = scores.binned(values, data.known)
    known, judged = (scores.relevance(bins[which], data.codes[which]) for which in (data.known, ~data.known))
    single = scores.single(known, judged)
    importance, accuracy = scores.importances(values, data.codes, data.known, seed)
    disentanglement, completeness = scores.dci(importance)
    return {
        "features": values.shape[1],
        "own": float(single["own"].mean()),
        "gap": float(single["gap"].mean()),
        "followers": float((single["gap"] > FOLLOWS).mean()),
        "style": float((single["factor"] == FACTORS.index("style")).mean()),
        "mig": float(scores.mig(known, judged).mean()),
        "disentanglement": disentanglement,
        "completeness": completeness,
        "informativeness": float(accuracy.mean()),
    }


def main() -> None:
    """Run the seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pacs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--units", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = halves(arguments.pacs)
    seeds = [
        harness.kept(f"factors-{arguments.units}-{seed}", partial(run, data, arguments.units, seed))
        for seed in range(arguments.seeds)
    ]
    print(f"| | {' | '.join(COLUMNS.values())} |\n{'|---' * (len(COLUMNS) + 1)}|")
    for name in seeds[0]:
        print(f"| {name} | {' | '.join(_cell(column, [row[name][column] for row in seeds]) for column in COLUMNS)} |")


def _cell(column: str, values: list[float]) -> str:
    if column == "features":
        return f"{np.mean(values):.0f}"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
