"""Sparse autoencoders of the library ``overcomplete``, trained on the very activations that the split is made from.

The layer's output z on seeded tokens of the probing pictures, less its mean and over its mean length, is what they learn; they have as many
latents as the split has sub-units. Each is scored on the held-out pictures like every other feature, with the part of the variance that it
keeps (R², of tokens) and what replacing z by its reconstruction does to the model: the last block is run on, and a nearest-neighbour
classifier, fitted to the original features of the probing pictures, classifies the held-out ones.

    python -m benchmarks.method.saes --expansion 4.4 [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import ModuleType

import matplotlib
import matplotlib.cm
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from benchmarks.method import harness
from benchmarks.method.activations import activations, layer, probe
from benchmarks.method.model import LAYER, load

TOP_K, BATCH, RATE = 32, 512, 1e-3
TOKENS = 32  # of each probing picture
DOWNSTREAM = 300  # held-out pictures that go through the last block
Reconstruct = Callable[[Tensor], Tensor]


def library() -> ModuleType:
    """``overcomplete.sae``. Version 0.3.0 asks matplotlib for a function that newer versions have moved."""
    if not hasattr(matplotlib.cm, "get_cmap"):
        matplotlib.cm.get_cmap = matplotlib.colormaps.__getitem__
    from overcomplete import sae

    module: ModuleType = sae
    return module


def build(kind: str, latents: int, data: Tensor) -> nn.Module:
    """One autoencoder by its name; ``matryoshka`` is a BatchTopK one trained on nested prefixes of its latents."""
    sae, units = library(), data.shape[1]
    torch.manual_seed(0)
    if kind == "top_k":
        model = sae.TopKSAE(units, latents, top_k=TOP_K)
    elif kind in ("batch_top_k", "matryoshka"):
        model = sae.BatchTopKSAE(units, latents, top_k=TOP_K * BATCH)
    elif kind == "archetypal":
        points = data[torch.randperm(len(data))[:1000]]
        model = sae.RATopKSAE(units, latents, points=points, top_k=TOP_K, delta=1.0)
    elif kind == "matching_pursuit":
        model = sae.MpSAE(units, latents, k=TOP_K // 2)
    else:
        raise ValueError(kind)
    built: nn.Module = model
    return built


def train(kind: str, model: nn.Module, data: Tensor, steps: int) -> None:
    """Minimise the squared error of the reconstruction with Adam, the rate falling to 0 along a cosine."""
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        x = data[torch.randint(len(data), (BATCH,), generator=generator)]
        _, codes, reconstruction = model(x)
        loss = (x - reconstruction).square().mean()
        if kind == "matryoshka":
            dictionary = model.get_dictionary()
            for part in (16, 8, 4, 2):
                prefix = codes.shape[1] // part
                loss = loss + (x - codes[:, :prefix] @ dictionary[:prefix]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def latent_peaks(model: nn.Module, scale: Callable[[Tensor], Tensor]) -> harness.Peaks:
    """The latents' peaks on the held-out pictures."""
    _, z = harness.held_out()
    values, tokens = [], []
    with torch.inference_mode():
        for start in range(0, len(z), 64):
            block = torch.from_numpy(z[start : start + 64])
            codes = model.encode(scale(block).flatten(0, 1))[1].reshape(*block.shape[:2], -1)
            most, where = codes.max(dim=1)
            values.append(most.numpy())
            tokens.append(where.numpy())
    return harness.Peaks(np.concatenate(values), np.concatenate(tokens))


def features(name: str, pictures: NDArray[np.int64], replace: Reconstruct | None = None) -> NDArray[np.float32]:
    """float32 (pictures, 768): CLS token and mean patch behind the last block, with the layer's output replaced."""
    model, number = load(), int(LAYER.split(".")[1])
    inputs, residual = activations(name).inputs, activations(name).residual
    fc2 = model.blocks[number].mlp.fc2
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 32):
            rows = pictures[start : start + 32]
            block = fc2(torch.from_numpy(inputs[rows].astype(np.float32)))
            block = block if replace is None else replace(block)
            x = torch.from_numpy(residual[rows].astype(np.float32)) + model.blocks[number].ls2(block)
            for later in model.blocks[number + 1 :]:
                x = later(x)
            x = model.norm(x)
            found.append(torch.cat([x[:, 0], x[:, 1:].mean(1)], 1).numpy())
    return np.concatenate(found)


def main() -> None:
    """Train and score all kinds; keep ``results/saes.json`` in the cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--expansion", type=float, required=True, help="latents per unit")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="few steps, one kind")
    kinds = ["top_k", "batch_top_k", "archetypal", "matryoshka", "matching_pursuit"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = 20 if arguments.quick else arguments.steps
    data = torch.from_numpy(probe(TOKENS, 0, layer()).z)
    mean, length = data.mean(0), (data - data.mean(0)).norm(dim=1).mean() / data.shape[1] ** 0.5
    data = (data - mean) / length
    latents = round(arguments.expansion * data.shape[1])
    labels, held_out = activations("probing").labels, activations("held_out")
    order = np.sort(np.random.default_rng(0).permutation(len(held_out.labels))[:DOWNSTREAM])
    pictures = np.arange(0, len(labels), 2)
    classifier = KNeighborsClassifier(10, metric="cosine", weights="distance").fit(features("probing", pictures), labels[pictures])
    original = features("held_out", order)
    accuracy = float((classifier.predict(original) == held_out.labels[order]).mean())
    held = ((torch.from_numpy(harness.held_out()[1]).flatten(0, 1) - mean) / length)[::4]
    spread = float((held - held.mean(0)).square().sum())
    results: dict[str, object] = {"settings": {"latents": latents, "steps": steps, "top_k": TOP_K, "batch": BATCH, "tokens": len(data)}}
    results["original"] = {"accuracy": accuracy}
    print(results, flush=True)
    for kind in ("top_k",) if arguments.quick else arguments.kinds:
        begun = time.process_time()
        model = build(kind, latents, data)
        train(kind, model, data, steps // 2 if kind == "matching_pursuit" else steps)
        seconds = time.process_time() - begun
        with torch.inference_mode():
            error = sum(float((part - model(part)[2]).square().sum()) for part in held.split(4096))

        def replace(block: Tensor, model: nn.Module = model) -> Tensor:
            reconstruction: Tensor = model(((block - mean) / length).flatten(0, 1))[2]
            return (reconstruction * length + mean).reshape(block.shape)

        changed = features("held_out", order, replace)
        cosine = (changed * original).sum(1) / np.linalg.norm(changed, axis=1) / np.linalg.norm(original, axis=1)
        found = latent_peaks(model, lambda block: (block - mean) / length)
        row = harness.summary(harness.score(found)) | {
            "r2": 1 - error / spread,
            "accuracy": float((classifier.predict(changed) == held_out.labels[order]).mean()),
            "changed": float((classifier.predict(changed) != classifier.predict(original)).mean()),
            "cosine": float(cosine.mean()),
            "seconds": seconds,
        }
        results[kind] = row
        print(kind, row, flush=True)
        harness.save("saes-quick" if arguments.quick else "saes", results)


if __name__ == "__main__":
    main()
