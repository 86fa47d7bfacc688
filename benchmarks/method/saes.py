"""Sparse autoencoders of the library ``overcomplete`` on the photographs, scored like units and sub-units.

They learn the output of one layer of the ViT on all collected tokens of the probing pictures, less its mean and over
its mean length, until the part of the variance that they keep of held-out tokens (R²) stalls. Each has five latents
per unit, as many as the default split has sub-units. Beside the scores of
``benchmarks.method.held_out`` stands what replacing the output by its reconstruction does to the model: a
nearest-neighbour classifier of the model's own features classifies held-out pictures with and without it.

    python -m benchmarks.method.saes --photos FOLDER [FOLDER …] [--kinds top_k top_k_8 …] [--seeds 1]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from benchmarks.method import harness, photographs
from benchmarks.method.held_out import HeldOut, scores
from elude.exporter.images import ImageSource

LAYER = "vit:blocks.10.mlp.fc2"
ACTIVE, BATCH, RATE = 32, 512, 1e-3
EXPANSION = 5
MOST_STEPS, CHECKED, STALLED = 3_000, 250, 0.002  # steps; steps from check to check; less R² gained in two ends it
JUDGED = 4_000  # held-out tokens that R² is of
REPLACED = 300  # held-out pictures that go through the model with the output replaced
KINDS = ("top_k", "top_k_8", "batch_top_k", "matryoshka", "archetypal")


def library() -> ModuleType:
    """``overcomplete.sae``. Version 0.3.0 asks matplotlib for a function that newer versions have moved."""
    import matplotlib
    import matplotlib.cm

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
    if kind in ("top_k", "top_k_8"):
        model = sae.TopKSAE(units, latents, top_k=8 if kind == "top_k_8" else ACTIVE)
    elif kind in ("batch_top_k", "matryoshka"):
        model = sae.BatchTopKSAE(units, latents, top_k=ACTIVE * BATCH)
    elif kind == "archetypal":
        points = data[torch.randperm(len(data))[:1000]]
        model = sae.RATopKSAE(units, latents, points=points, top_k=ACTIVE, delta=1.0)
    else:
        raise ValueError(kind)
    built: nn.Module = model
    return built


def train(kind: str, model: nn.Module, data: Tensor, seed: int, held: Tensor) -> int:
    """Minimise the squared error of the reconstruction with Adam until R² of ``held`` stalls; returns the steps."""
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    kept = [-np.inf, -np.inf]
    for step in range(1, MOST_STEPS + 1):
        model.train()
        x = data[torch.randint(len(data), (BATCH,), generator=generator)]
        optimiser.zero_grad()
        _loss(kind, model, x).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % CHECKED == 0:
            model.eval()
            kept.append(variance_kept(model, held))
            if kept[-1] < kept[-3] + STALLED:
                break
    model.eval()
    return step


def _loss(kind: str, model: nn.Module, x: Tensor) -> Tensor:
    _, codes, reconstruction = model(x)
    loss: Tensor = (x - reconstruction).square().mean()
    if kind == "matryoshka":
        dictionary = model.get_dictionary()
        for part in (16, 8, 4, 2):
            prefix = codes.shape[1] // part
            loss = loss + (x - codes[:, :prefix] @ dictionary[:prefix]).square().mean()
    return loss


def variance_kept(model: nn.Module, held: Tensor) -> float:
    """R² of some tokens."""
    with torch.inference_mode():
        error = sum(float((part - model(part)[2]).square().sum()) for part in held.split(BATCH))
    return 1 - error / float((held - held.mean(0)).square().sum())


@dataclass(frozen=True)
class Autoencoder:
    """A trained one, with the scale of what it reads."""

    model: nn.Module
    latents: int
    mean: Tensor
    length: float

    def __len__(self) -> int:
        return self.latents

    def values(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The codes; see ``benchmarks.method.held_out.Features``."""
        with torch.inference_mode():
            codes: Tensor = self.model.encode(self.scaled(outputs).flatten(0, 1))[1]  # type: ignore[operator]
        return codes.reshape(*outputs.shape[:2], -1)

    def scaled(self, outputs: Tensor) -> Tensor:
        """The layer's outputs as the autoencoder reads them."""
        return (outputs - self.mean) / self.length

    def reconstructed(self, outputs: Tensor) -> Tensor:
        """The layer's outputs, by way of the codes."""
        flat = torch.cat([self.model(part)[2] for part in self.scaled(outputs).flatten(0, 1).split(BATCH)])
        return (flat * self.length + self.mean).reshape(outputs.shape)


@dataclass(frozen=True)
class Downstream:
    """The ViT from the split block on, and a nearest-neighbour classifier of its features.

    Attributes:
        model: its blocks from the split one on.
        tokens: (pictures, tokens, units), what the split block reads.
        labels: classes of these pictures.
        classifier: fitted to all other held-out pictures.
    """

    model: nn.Module
    tokens: Tensor
    labels: NDArray[np.str_]
    classifier: KNeighborsClassifier

    def predict(self, replaced: Autoencoder | None = None) -> NDArray[np.str_]:
        """The pictures' classes, with the layer's output replaced by its reconstruction."""
        hook = None
        if replaced is not None:
            hook = self.model.blocks[0].mlp.fc2.register_forward_hook(lambda _, __, z: replaced.reconstructed(z))
        with torch.inference_mode():
            features = [self._tail(part) for part in self.tokens.split(25)]
        if hook is not None:
            hook.remove()
        classes: NDArray[np.str_] = self.classifier.predict(torch.cat(features).numpy())
        return classes

    def _tail(self, tokens: Tensor) -> Tensor:
        tail: Tensor = self.model.forward_head(self.model.norm(self.model.blocks(tokens)), pre_logits=True)
        return tail


def downstream(held: ImageSource, pooled: NDArray[np.float64]) -> Downstream:
    """Of the first ``REPLACED`` held-out pictures of a seeded order that have a class mate."""
    labels = np.array([entry.label for entry in held.entries])
    order = np.random.default_rng(0).permutation(len(labels))
    judged, others = np.sort(order[:REPLACED]), order[REPLACED:]
    classifier = KNeighborsClassifier(10, metric="cosine", weights="distance").fit(pooled[others], labels[others])
    loaded = photographs.network("vit")
    model, number = loaded.module, int(LAYER.split(".")[1])
    before, model.blocks = model.blocks[:number], model.blocks[number:]
    source = ImageSource("replaced", tuple(held.entries[row] for row in judged))
    with torch.inference_mode():
        tokens = [
            before(model.norm_pre(model._pos_embed(model.patch_embed(torch.from_numpy(pixels)))))
            for _, pixels in source.batches(loaded.preprocess, 25)
        ]
    return Downstream(model, torch.cat(tokens), labels[judged], classifier)


def fitted(kind: str, outputs: Tensor, held: HeldOut, seed: int) -> tuple[Autoencoder, dict[str, float]]:
    """An autoencoder of a layer's ``outputs`` (instances, units), trained until R² of held-out ones stalls."""
    mean = outputs.mean(0)
    length = float((outputs - mean).norm(dim=1).mean()) / outputs.shape[1] ** 0.5
    flat = torch.from_numpy(held.outputs.reshape(-1, held.outputs.shape[2]))
    judged = flat[torch.from_numpy(np.random.default_rng(0).permutation(len(flat))[:JUDGED])]
    data, latents = (outputs - mean) / length, EXPANSION * outputs.shape[1]
    model = build(kind, latents, data, seed)
    steps = train(kind, model, data, seed, (judged - mean) / length)
    facts = {"r2": variance_kept(model, (judged - mean) / length), "steps": float(steps)}
    return Autoencoder(model, latents, mean, length), facts


def run(kind: str, outputs: Tensor, held: HeldOut, after: Downstream, seed: int) -> photographs.Row:
    """Train one and score it."""
    begun = time.process_time()
    encoder, facts = fitted(kind, outputs, held, seed)
    plain, changed = after.predict(), after.predict(encoder)
    return (
        scores(encoder, held)
        | facts
        | {
            "accuracy": float((changed == after.labels).mean()),
            "plain accuracy": float((plain == after.labels).mean()),
            "changed": float((changed != plain).mean()),
            "seconds": time.process_time() - begun,
        }
    )


def main() -> None:
    """Train and score all kinds; what one gave is kept in the cache, so that a run that was stopped resumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--probing", type=int, default=2_500)
    parser.add_argument("--held-out", type=int, default=2_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    probing, held = photographs.photographs(arguments.photos, arguments.probing, arguments.held_out)
    material = photographs.materials([LAYER], probing, held)[LAYER]
    score = partial(run, outputs=torch.from_numpy(np.array(material.probe.z)), held=material.held)
    after = downstream(held, photographs.embedded("vit", held))
    results: dict[str, list[photographs.Row]] = {kind: [] for kind in arguments.kinds}
    for seed, kind in product(range(arguments.seeds), arguments.kinds):
        name = f"saes-{kind}-{seed}-{probing.fingerprint()[:8]}"
        results[kind].append(harness.kept(name, partial(score, kind, after=after, seed=seed)))
        print(seed, kind, results[kind][-1], flush=True)
    print(photographs.table(results))


if __name__ == "__main__":
    main()
