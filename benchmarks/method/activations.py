"""What the benchmarks' layer sees on all tokens of all pictures, computed once and read from the cache afterwards.

Per set of pictures: ``inputs`` float16 (pictures, tokens, 1536), the layer's input q; ``residual``
    float16 (pictures, tokens, 384), what
the layer's output is added to. Everything else follows from q: z = W q + b. Rounding q to half
precision is harmless here, as all that is compared reads the same q.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.method.fetch import cache
from benchmarks.method.images import build
from benchmarks.method.model import LAYER, PREPROCESS, load
from elude.exporter.images import open_images
from elude.exporter.models.layers import Layer, find_layers
from elude.exporter.probing.probe import Probe


@dataclass(frozen=True)
class Activations:
    """The activations of one set of pictures, memory-mapped."""

    inputs: NDArray[np.float16]
    residual: NDArray[np.float16]
    labels: NDArray[np.str_]


def activations(name: str, batch: int = 16) -> Activations:
    """The activations of the set ``name``, computed at the first call."""
    folder = cache() / "activations" / name
    if not (folder / "labels.json").exists():
        _compute(name, batch)
    inputs, residual = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("inputs", "residual"))
    return Activations(inputs, residual, np.array(json.loads((folder / "labels.json").read_text())))


def layer() -> Layer:
    """The layer that the benchmarks split."""
    return find_layers(load(), LAYER)[0]


def probe(tokens_per_image: int, seed: int, which: Layer) -> Probe:
    """Seeded tokens of each probing picture, as ``elude.exporter.probing.probe.collect`` would give them."""
    inputs = activations("probing").inputs
    images, tokens, _ = inputs.shape
    chosen = np.stack(
        [
            np.sort(np.random.default_rng([seed, i]).choice(tokens, tokens_per_image, replace=False))
            for i in range(images)
        ]
    )
    q = np.concatenate([inputs[i, chosen[i]].astype(np.float32) for i in range(images)])
    with torch.inference_mode():
        z = which.module(torch.from_numpy(q)).numpy()
    return Probe(which.name, q[:, :, None], z, np.repeat(np.arange(images), tokens_per_image), chosen.ravel())


def _compute(name: str, batch: int) -> None:
    model, images = load(), open_images(build(name))
    folder = cache() / "activations" / name
    folder.mkdir(parents=True, exist_ok=True)
    block = model.blocks[int(LAYER.split(".")[1])]
    model.blocks = model.blocks[: int(LAYER.split(".")[1]) + 1]
    seen: dict[str, torch.Tensor] = {}
    block.mlp.fc2.register_forward_hook(lambda _, args, __: seen.update(q=args[0]))
    block.norm2.register_forward_hook(lambda _, args, __: seen.update(residual=args[0]))
    stores: dict[str, np.memmap] = {}
    with torch.inference_mode():
        for start, pixels in images.batches(PREPROCESS, batch):
            model.forward_features(torch.from_numpy(pixels))
            for part, values in (("inputs", seen["q"]), ("residual", seen["residual"])):
                if part not in stores:
                    shape = (len(images), *values.shape[1:])
                    stores[part] = np.lib.format.open_memmap(
                        folder / f"{part}.npy", mode="w+", dtype=np.float16, shape=shape
                    )
                stores[part][start : start + len(pixels)] = values.numpy()
            if start % (batch * 10) == 0:
                print(name, start, len(images), flush=True)
    for store in stores.values():
        store.flush()
    (folder / "labels.json").write_text(json.dumps([entry.label for entry in images.entries]))


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    for each in sys.argv[1:]:
        print(each, activations(each).inputs.shape)
