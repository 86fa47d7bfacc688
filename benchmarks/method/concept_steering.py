"""Does steering a concept move its class more than its best member does, at equal harm elsewhere?

For the embedded model, whose last block is split: its output is the head's input plus what an edit adds, so
thousands of edits take one pass. Of every concept of several sub-units that is named after a class,

- *effect* is how far the class's probability falls on images of the class, mean over them;
- *harm* is the total variation distance between the answers with and without the edit, mean over all other images.

Gains fall from 1 in steps of a factor. The gain of each set of sub-units, and the concept's best member, are chosen on
one half of the evaluation images: the largest effect at a harm of at most ``HARMS``. The other half judges.

    python -m benchmarks.method.concept_steering BUNDLE
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elude.exporter.images import open_images
from elude.exporter.models.load import EMBEDDED_FOLDER, ModelOptions, load_any
from elude.exporter.rewrite import graft
from elude.exporter.splitting.split_file import bundle_splits
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue

HARMS = (0.01, 0.03, 0.1)
GAINS = tuple(1 - 2 ** (step / 2) for step in range(-4, 15))  # 0.75 … −127
SETS = ("the concept", "its best member", "the units of its members", "as many random sub-units")


@dataclass(frozen=True)
class Material:
    """Some images with all that edits need.

    Attributes:
        tokens: (images, tokens, units), what the head reads.
        sub_units: (images, tokens, sub-units), activations.
        parent: int64 (sub-units,), the unit of each.
        plain: (images, classes), probabilities without an edit.
        labels: int64 (images,).
    """

    tokens: Tensor
    sub_units: Tensor
    parent: NDArray[np.int64]
    plain: Tensor
    labels: NDArray[np.int64]

    def rows(self, rows: NDArray[np.int64]) -> Material:
        """Only some of the images."""
        return Material(self.tokens[rows], self.sub_units[rows], self.parent, self.plain[rows], self.labels[rows])


@dataclass(frozen=True)
class Outcome:
    """What an edit does: the fall of the class's probability, and the harm elsewhere."""

    effect: float
    harm: float


def material(bundle: Bundle) -> tuple[nn.Module, Material]:
    """The embedded model, and its evaluation images."""
    loaded = load_any("embedded", ModelOptions())
    images = open_images(EMBEDDED_FOLDER / "evaluation.tar")
    _, pixels = next(images.batches(loaded.preprocess, len(images)))
    (split,) = bundle_splits(bundle)
    seen: dict[str, Tensor] = {}
    module = loaded.module
    with torch.inference_mode():
        hook = module.norm.register_forward_pre_hook(lambda _, inputs: seen.update(tokens=inputs[0]))
        logits = module(torch.from_numpy(pixels))
        hook.remove()
        sub_units = graft(module, [split]).sub_units(torch.from_numpy(pixels))[split.layer]
        plain = answers(module, seen["tokens"])
    torch.testing.assert_close(plain, logits.softmax(-1))
    names = list(loaded.labels or ())
    labels = np.array([names.index(entry.label or "") for entry in images.entries])
    return module, Material(seen["tokens"], sub_units, split.parent, plain, labels)


def answers(module: nn.Module, tokens: Tensor) -> Tensor:
    """(images, classes): probabilities, from what the last block gives."""
    logits: Tensor = module.forward_head(module.norm(tokens))  # type: ignore[operator]
    return logits.softmax(-1)


def outcomes(module: nn.Module, data: Material, members: Sequence[int], label: int) -> list[Outcome]:
    """What steering the sub-units ``members`` does, at each of ``GAINS``."""
    rows = list(members)
    change = torch.zeros_like(data.tokens).index_add_(
        2, torch.from_numpy(data.parent[rows]), data.sub_units[:, :, rows]
    )
    inside = torch.from_numpy(data.labels == label)
    results = []
    for gain in GAINS:
        steered = answers(module, data.tokens + (gain - 1) * change)
        fall = (data.plain - steered)[inside, label].mean()
        distance = (steered - data.plain).abs().sum(-1)[~inside].mean() / 2
        results.append(Outcome(float(fall), float(distance)))
    return results


def strongest(tried: Sequence[Outcome], harm: float) -> int | None:
    """The gain, by number, of the largest effect at no more than ``harm``; None: none has an effect."""
    allowed = [number for number, outcome in enumerate(tried) if outcome.harm <= harm and outcome.effect > 0]
    return max(allowed, key=lambda number: tried[number].effect, default=None)


def judge(
    module: nn.Module, halves: tuple[Material, Material], sets: Mapping[str, Sequence[Sequence[int]]], label: int
) -> dict[tuple[str, float], Outcome]:
    """Of each family of sets of sub-units the best set and gain of the first half, as the second half sees it."""
    results = {}
    for name, candidates in sets.items():
        tried = [outcomes(module, halves[0], members, label) for members in candidates]
        judged: dict[int, list[Outcome]] = {}
        for harm in HARMS:
            options = [(number, strongest(outcome, harm)) for number, outcome in enumerate(tried)]
            best = max(
                ((number, gain) for number, gain in options if gain is not None),
                key=lambda pair: tried[pair[0]][pair[1]].effect,
                default=None,
            )
            if best is None:
                results[name, harm] = Outcome(0.0, 0.0)
                continue
            number, gain = best
            if number not in judged:
                judged[number] = outcomes(module, halves[1], candidates[number], label)
            results[name, harm] = judged[number][gain]
    return results


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    bundle = Bundle.open(parser.parse_args().bundle)
    torch.set_num_threads(1)
    module, data = material(bundle)
    order = np.random.default_rng(0).permutation(len(data.labels))
    halves = (data.rows(order[::2]), data.rows(order[1::2]))
    names, generator = list(bundle.json("labels.json")), np.random.default_rng(1)
    rows = []
    with torch.inference_mode():
        for concept in Catalogue.of(bundle).concepts():
            name = re.sub(r" \d+$", "", concept.name or "")
            if name in names and len(concept.members) > 1:
                units = np.unique(data.parent[list(concept.members)])
                random = generator.choice(len(data.parent), len(concept.members), replace=False)
                candidates = ([concept.members], [(s,) for s in concept.members])
                others = ([np.flatnonzero(np.isin(data.parent, units)).tolist()], [random.tolist()])
                sets = dict(zip(SETS, (*candidates, *others), strict=True))
                rows.append(judge(module, halves, sets, names.index(name)))
                print(concept.id, concept.name, len(concept.members), rows[-1], flush=True)
    print(f"\n{len(rows)} concepts\n\n| steered | " + " | ".join(f"harm ≤ {harm}" for harm in HARMS) + " |")
    print("|---" * (len(HARMS) + 1) + "|")
    for name in SETS:
        cells = []
        for harm in HARMS:
            effect, distance = (
                np.mean([getattr(row[name, harm], part) for row in rows]) for part in ("effect", "harm")
            )
            less = np.mean([row[SETS[0], harm].effect > row[name, harm].effect for row in rows])
            cells.append(f"{effect:.3f} ({distance:.3f}; {less:.0%})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
