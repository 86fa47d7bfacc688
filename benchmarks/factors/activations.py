"""The layer's input on figure tokens of all pictures, computed once and read from the cache afterwards.

``inputs`` float16 (pictures, TOKENS, 1536): seeded patch tokens that the figure covers at least
half; a picture with fewer repeats some, which changes no maximum. ``factors`` int64 (pictures, 4)
and ``half`` int64 (pictures,). The backbone runs in bfloat16, three times as fast on a CPU that has
it; all families of features read the same inputs, so what they are compared on is the same.

    python -m benchmarks.factors.activations
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.factors.people import COPIES, FACTORS, halves, people, pictures
from benchmarks.method.fetch import cache
from benchmarks.method.model import LAYER, PREPROCESS, load

TOKENS = 64
BATCH = 16


@dataclass(frozen=True)
class People:
    """What the module's docstring describes; ``inputs`` is memory-mapped."""

    inputs: NDArray[np.float16]
    factors: NDArray[np.int64]
    half: NDArray[np.int64]


def activations() -> People:
    """The activations, computed at the first call."""
    folder = cache() / "activations" / "people"
    if not (folder / "inputs.npy").exists():
        _compute()
    named = np.array([person.factors for person in people()])
    codes = np.stack([np.unique(named[:, i], return_inverse=True)[1] for i in range(len(FACTORS))], axis=1)
    inputs = np.load(folder / "inputs.npy", mmap_mode="r")
    return People(inputs, np.tile(codes, (COPIES, 1)), np.tile(halves(len(named)), COPIES))


def _compute() -> None:
    model, number = load().to(torch.bfloat16), int(LAYER.split(".")[1])
    model.blocks = model.blocks[: number + 1]
    seen: dict[str, torch.Tensor] = {}
    model.blocks[number].mlp.fc2.register_forward_hook(lambda _, args, __: seen.update(q=args[0]))
    count = len(people())
    folder = cache() / "activations" / "people"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "partial.npy"
    store: np.memmap | None = None
    row = 0
    for copy in range(COPIES):
        batch = []
        for place, picture in enumerate(pictures(copy)):
            batch.append(picture)
            if len(batch) < BATCH and place + 1 < count:
                continue
            pixels = PREPROCESS.normalise(np.stack([each.pixels for each in batch]))
            with torch.inference_mode():
                model.forward_features(torch.from_numpy(pixels).to(torch.bfloat16))
            if store is None:
                shape = (COPIES * count, TOKENS, seen["q"].shape[2])
                store = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
            for each, q in zip(batch, seen["q"].float().numpy(), strict=True):
                tokens = np.flatnonzero(each.figure) + q.shape[0] - each.figure.size  # prefix tokens come first
                rng = np.random.default_rng([row, 3])
                store[row] = q[rng.choice(tokens, TOKENS, replace=len(tokens) < TOKENS)]
                row += 1
            batch = []
            print("pictures", row, "of", COPIES * count, flush=True)
    if store is None:
        raise RuntimeError("There are no pictures of people: is the emoji package whole?")
    store.flush()
    partial.rename(folder / "inputs.npy")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(activations().inputs.shape)
