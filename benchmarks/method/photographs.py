"""The method on photographs of your own: units, rules, fair controls and floors, side by side.

Two networks with real weights are taken, a ViT-S/14 of the DINOv2 type and EfficientNet-Lite0; each
judges the other from outside. Activations are collected once, into the cache (benchmarks/method/fetch.py),
and read from there by later runs. A seed chooses which of the collected tokens of each probing picture
make the split; units and held-out pictures are the same for all seeds.

    python -m benchmarks.method.photographs --photos FOLDER [FOLDER …] [--layers vit:blocks.10.mlp.fc2 …]
        [--rules RULE …] [--units 96] [--seeds 3] [--probing 2500] [--held-out 2000]

The class of a picture is the folder that it lies in. Prints a table per layer. What a layer, rule and seed
gave is kept in the cache (``results/photographs-*.json``), so that a run that was stopped resumes there.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.method import harness, model
from benchmarks.method.fetch import cache
from benchmarks.method.harness import Family
from benchmarks.method.held_out import HeldOut, random_pairs, scores
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.images import SUFFIXES, Entry, ImageSource
from elude.exporter.models.layers import Layer, find_layers
from elude.exporter.models.load import LoadedModel
from elude.exporter.probing.probe import Probe, collect
from elude.exporter.scoring.external_encoder import embed
from elude.exporter.splitting.contributions import layer_bias, layer_weight
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_layer import split_layer
from elude.handlers.bundle.manifest import Source
from elude.handlers.images.preprocess import Preprocess

COLLECTED = 32  # tokens of each picture
TOKENS = ExportSettings().tokens_per_image  # of a probing picture, that a seed takes
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Preprocess]] = {
    "vit": (model.load, model.PREPROCESS),
    "lite0": (model.load_lite, model.LITE_PREPROCESS),
}
LAYERS = ("vit:blocks.10.mlp.fc2", "vit:blocks.11.mlp.fc2", "lite0:blocks.5.3.conv_pwl", "lite0:blocks.6.0.conv_pwl")
RULES = {
    "literal": ExportSettings(method="paper"),
    "signed, plain clusters": ExportSettings(margin_rule="signed", clusterer="projected"),
    "default": ExportSettings(),
}
COLUMNS = {
    "own": "own",
    "centred": "centred",
    "external": "external",
    "purity": "purity",
    "covered": "classes",
    "distinct": "distinct",
    "visible": "visible",
    "groups": "concepts",
    "dead": "dead",
    "expansion": "EF",
    "own_100": "own, top 100",
    "external_100": "external, top 100",
}
Row = dict[str, float]


@dataclass(frozen=True)
class Material:
    """What one layer is split from, and what its features are judged by."""

    layer: Layer
    probe: Probe
    held: HeldOut


def photographs(folders: Sequence[Path], probing: int, held_out: int) -> tuple[ImageSource, ImageSource]:
    """Two sets without a common file, drawn at random with a fixed seed.

    Raises:
        ValueError: there are too few.
    """
    entries = [
        Entry(str(path), f"{folder.name}/{path.parent.relative_to(folder)}", path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if len(entries) < probing + held_out:
        raise ValueError(f"There are {len(entries)} photographs, fewer than {probing} and {held_out}.")
    order = np.random.default_rng(0).permutation(len(entries))
    held, rest = order[:held_out], order[held_out : held_out + probing]
    return _drawn("probing", entries, rest), _drawn("held out", entries, held)


def _drawn(name: str, entries: Sequence[Entry], rows: NDArray[np.int64]) -> ImageSource:
    return ImageSource(name, tuple(entries[row] for row in np.sort(rows)))


def network(name: str) -> LoadedModel:
    """One of ``NETWORKS``."""
    load, preprocess = NETWORKS[name]
    module = load().requires_grad_(False)
    return LoadedModel(module, preprocess, None, Source(name, "", "", ""))


def materials(wanted: Sequence[str], probing: ImageSource, held: ImageSource) -> dict[str, Material]:
    """Collect what ``wanted`` layers (``NETWORK:LAYER``) need, or read it from the cache."""
    names = {address.partition(":")[0] for address in wanted}
    encoders = {name: embedded(name, held) for name in NETWORKS if names - {name}}
    result = {}
    for group in _together(wanted):
        name, paths = group[0].partition(":")[0], [address.partition(":")[2] for address in group]
        loaded = network(name)
        layers = [layer for path in paths for layer in find_layers(loaded.module, path)]
        probes, judged = (
            collect(
                loaded.module,
                layers,
                images,
                loaded.preprocess,
                tokens_per_image=COLLECTED,
                seed=0,
                batch_size=16,
                folder=_folder(images) / f"{name}-{'-'.join(paths)}",
                progress=partial(_report, f"{name}, {images.name}"),
            )
            for images in (probing, held)
        )
        external = next(space for other, space in encoders.items() if other != name)
        for layer in layers:
            result[f"{name}:{layer.name}"] = Material(
                layer, probes[layer.name], held_out(judged[layer.name], external, held)
            )
    return {address: result[address] for address in wanted}


def _together(wanted: Sequence[str]) -> list[list[str]]:
    """Groups of layers that one pass collects: of each network those of ``LAYERS``, and all others."""
    others = [address for address in wanted if address not in LAYERS]
    groups = [[one for one in part if one.startswith(f"{name}:")] for name in NETWORKS for part in (LAYERS, others)]
    return [group for group in groups if set(group) & set(wanted)]


def held_out(probe: Probe, external: NDArray[np.float64], images: ImageSource) -> HeldOut:
    """Activations of held-out pictures, equally many tokens of each, as they are judged."""
    pictures = len(images)
    return HeldOut(
        probe.q[:, :, 0].reshape(pictures, -1, probe.q.shape[1]),
        probe.z.reshape(pictures, -1, probe.z.shape[1]),
        external - external.mean(axis=0),
        [entry.label for entry in images.entries],
    )


def measure(material: Material, units: int, seed: int, rule: str) -> dict[str, Row]:
    """One of ``RULES`` and its fair control, of one layer for one choice of tokens."""
    chosen = _units(material.layer, units)
    layer, probe = of_units(material.layer, chosen), some_tokens(material.probe, TOKENS, seed)
    probe = replace(probe, z=probe.z[:, chosen])
    plan = replace(RULES[rule], seed=seed).for_instances(len(probe.z), layer.name)
    split, control = split_layer(layer, probe, plan)
    return {
        title: scores(sub_units(layer, made), material.held) | {"expansion": made.expansion_factor}
        for title, made in ((rule, split), (f"{rule}, shuffled", control))
    }


def floors(material: Material, units: int) -> dict[str, Row]:
    """The units themselves, random directions of the layer's output, and random pairs of pictures."""
    chosen = _units(material.layer, units)
    weight, bias = layer_weight(material.layer)[:, :, 0], layer_bias(material.layer)
    directions = np.random.default_rng(1).standard_normal((len(chosen), len(weight)), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return {
        "random pairs": random_pairs(material.held, 0),
        "random directions": scores(Family(directions @ weight, directions @ bias), material.held),
        "units": scores(Family(weight[chosen], bias[chosen]), material.held) | {"expansion": 1.0},
    }


def _units(layer: Layer, count: int) -> NDArray[np.int64]:
    """A seeded choice of the layer's units, ascending; all, where there are not as many."""
    return np.sort(np.random.default_rng(0).choice(layer.units, min(count, layer.units), replace=False))


def of_units(layer: Layer, chosen: NDArray[np.int64]) -> Layer:
    """The layer with some of its units only.

    Raises:
        ValueError: it is not a sum over one place.
    """
    if layer.window > 1 or layer.groups > 1:
        raise ValueError(f"{layer.name} is neither a linear layer nor a plain 1x1 convolution.")
    module = nn.Linear(layer.inputs, len(chosen))
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(layer_weight(layer)[chosen, :, 0]))
        module.bias.copy_(torch.from_numpy(layer_bias(layer)[chosen]))
    return Layer(layer.name, "linear", module, len(chosen), layer.inputs, 1, 1)


def some_tokens(probe: Probe, count: int, seed: int) -> Probe:
    """``count`` of each picture's collected tokens."""
    pictures = len(probe.pictures)
    tokens = len(probe.z) // pictures
    generator = np.random.default_rng(seed)
    chosen = [
        np.sort(generator.choice(tokens, min(count, tokens), replace=False)) + tokens * i for i in range(pictures)
    ]
    rows = np.concatenate(chosen)
    return Probe(
        probe.layer, probe.q[rows], probe.z[rows], probe.image[rows], probe.token[rows], np.asarray(probe.pictures)
    )


def sub_units(layer: Layer, split: LayerSplit) -> Family:
    """The sub-units as features of the layer's input."""
    weight, bias = layer_weight(layer)[split.parent, :, 0], layer_bias(layer)[split.parent]
    return Family((split.shares() * weight).astype(np.float32), (split.omega() * bias).astype(np.float32))


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """A Markdown table: means over the seeds, ± standard deviations."""
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, of_seeds in rows.items():
        cells = [_cell(column, [row[column] for row in of_seeds if column in row]) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(column: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    digits = {"covered": 0, "distinct": 0, "visible": 0, "groups": 0, "dead": 0, "expansion": 2}.get(column, 3)
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 or column == "expansion" else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def embedded(name: str, images: ImageSource) -> NDArray[np.float64]:
    """float64 (pictures, dimensions): pooled features of one of ``NETWORKS``, from the cache after the first call."""
    path = _folder(images) / f"{name}-pooled.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, embed(network(name), images, batch_size=16, progress=partial(_report, f"{name}, embedding")))
    space: NDArray[np.float64] = np.load(path)
    return space


def _folder(images: ImageSource) -> Path:
    return cache() / "photographs" / f"{Path(images.name).name.replace(' ', '-')}-{images.fingerprint()[:12]}"


def _report(step: str, done: int, total: int) -> None:
    if done % 160 == 0 or done == total:
        print(f"{step}: {done} of {total}", flush=True)


def kept(facts: tuple[object, ...], name: str, make: Callable[[], dict[str, Row]]) -> dict[str, Row]:
    """What ``make`` gives, from the cache if it was made of the same ``facts`` before."""
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]
    return harness.kept(f"photographs-{str(facts[0]).replace(':', '-')}-{name}-{key}", make)


def main() -> None:
    """Measure and print all layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--layers", nargs="+", default=LAYERS, metavar="NETWORK:LAYER")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--units", type=int, default=96, help="of each layer, at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--probing", type=int, default=2_500)
    parser.add_argument("--held-out", type=int, default=2_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    probing, held = photographs(arguments.photos, arguments.probing, arguments.held_out)
    for address, material in materials(arguments.layers, probing, held).items():
        facts = (address, arguments.units, probing.fingerprint(), held.fingerprint())
        parts = [kept(facts, "floors", partial(floors, material, arguments.units))]
        for rule, seed in product(arguments.rules, range(arguments.seeds)):
            make = partial(measure, material, arguments.units, seed, rule)
            parts.append(kept((*facts, replace(RULES[rule], seed=seed)), f"{rule}-{seed}", make))
        rows: dict[str, list[Row]] = {}
        for title, row in chain.from_iterable(part.items() for part in parts):
            rows.setdefault(title, []).append(row)
        print(f"\n{address}, {len(probing)} probing and {len(held)} held-out pictures\n\n{table(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
