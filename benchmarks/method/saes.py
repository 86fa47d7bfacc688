"""Sparse autoencoders of the library ``overcomplete``, trained on the very activations that the split is made from.

The layer's output z on seeded tokens of the probing pictures, less its mean and over its mean
length, is what they learn; they have as many latents as the split has sub-units. Each is scored on
the held-out pictures like every other feature, with the part of the variance that it keeps (R², of
tokens) and what replacing z by its reconstruction does to the model: the last block is run on, and
a nearest-neighbour classifier, fitted to the original features of the probing pictures, classifies
the held-out ones.

    python -m benchmarks.method.saes --expansion 4.2 [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
KINDS = ("top_k", "batch_top_k", "archetypal", "matryoshka", "matching_pursuit")
Reconstruct = Callable[[Tensor], Tensor]


def library() -> ModuleType:
    """``overcomplete.sae``. Version 0.3.0 asks matplotlib for a function that newer versions have moved."""
    import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which overcomplete imports through timm

    if not hasattr(matplotlib.cm, "get_cmap"):
        matplotlib.cm.get_cmap = matplotlib.colormaps.__getitem__
    from overcomplete import sae

    module: ModuleType = sae
    return module


def build(kind: str, latents: int, data: Tensor, seed: int) -> nn.Module:
    """One autoencoder by its name; ``matryoshka`` is a BatchTopK one trained on nested prefixes of its latents."""
    sae, units = library(), data.shape[1]
    torch.manual_seed(seed)
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


def train(kind: str, model: nn.Module, data: Tensor, steps: int, seed: int) -> None:
    """Minimise the squared error of the reconstruction with Adam, the rate falling to 0 along a cosine."""
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
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


@dataclass(frozen=True)
class Downstream:
    """A nearest-neighbour classifier of the model's features, and what it says of the held-out pictures when nothing
    is replaced.
    """

    classifier: KNeighborsClassifier
    pictures: NDArray[np.int64]
    features: NDArray[np.float32]
    labels: NDArray[np.str_]

    def compare(self, changed: NDArray[np.float32]) -> dict[str, float]:
        """Accuracy with other features, how many predictions they change, and how far they are from the original
        ones.
        """
        predicted = self.classifier.predict(changed)
        lengths = np.linalg.norm(changed, axis=1) * np.linalg.norm(self.features, axis=1)
        return {
            "accuracy": float((predicted == self.labels).mean()),
            "changed": float((predicted != self.classifier.predict(self.features)).mean()),
            "cosine": float(((changed * self.features).sum(1) / lengths).mean()),
        }


def downstream() -> Downstream:
    """Fitted to every second probing picture."""
    labels, held_out = activations("probing").labels, activations("held_out").labels
    order = np.sort(np.random.default_rng(0).permutation(len(held_out))[:DOWNSTREAM])
    pictures = np.arange(0, len(labels), 2)
    classifier = KNeighborsClassifier(10, metric="cosine", weights="distance").fit(
        features("probing", pictures), labels[pictures]
    )
    return Downstream(classifier, order, features("held_out", order), held_out[order])


def run(kinds: Sequence[str], latents: int, steps: int, seed: int, after: Downstream) -> dict[str, object]:
    """Train and score all kinds on the tokens of one seed; results are kept in the cache after each."""
    data = torch.from_numpy(probe(TOKENS, seed, layer()).z)
    mean, length = data.mean(0), (data - data.mean(0)).norm(dim=1).mean() / data.shape[1] ** 0.5
    data = (data - mean) / length
    held = ((torch.from_numpy(harness.held_out()[1]).flatten(0, 1) - mean) / length)[::4]
    spread = float((held - held.mean(0)).square().sum())
    results: dict[str, object] = {
        "settings": {"latents": latents, "steps": steps, "top_k": TOP_K, "batch": BATCH, "tokens": len(data)}
    }
    results["original"] = after.compare(after.features)
    for kind in kinds:
        begun = time.process_time()
        model = build(kind, latents, data, seed)
        train(kind, model, data, steps // 2 if kind == "matching_pursuit" else steps, seed)
        seconds = time.process_time() - begun
        with torch.inference_mode():
            error = sum(float((part - model(part)[2]).square().sum()) for part in held.split(4096))

        def replace(block: Tensor, model: nn.Module = model) -> Tensor:
            reconstruction: Tensor = model(((block - mean) / length).flatten(0, 1))[2]
            return (reconstruction * length + mean).reshape(block.shape)

        found = latent_peaks(model, lambda block: (block - mean) / length)
        row = harness.summary(harness.score(found)) | harness.redundancy(found, np.arange(latents))
        row |= {"r2": 1 - error / spread, "seconds": seconds}
        results[kind] = row | after.compare(features("held_out", after.pictures, replace))
        print(seed, kind, results[kind], flush=True)
        harness.save(f"saes-{steps}-{seed}", results)
    return results


def main() -> None:
    """Train and score all kinds; keep ``results/saes-STEPS-SEED.json`` in the cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--expansion", type=float, required=True, help="latents per unit")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    latents, after = round(arguments.expansion * len(harness.weight())), downstream()
    for seed in arguments.seeds:
        run(arguments.kinds, latents, arguments.steps, seed, after)


if __name__ == "__main__":
    main()
