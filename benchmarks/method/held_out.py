"""Judge linear features of a layer by what held-out pictures make of them, with the product's own scores.

Features are units, sub-units, those of a control, or random directions: all are rows on the layer's
input, so that the same code scores them. The activations over some seeded tokens of each picture
stand in for those over all tokens.

- ``own``, ``centred``: MS-Score of the layer's output, and of it less its mean.
- ``external``: of another network's pooled features, less their mean.
- ``purity``: part of the 16 strongest pictures that are of one class.
- ``covered``: classes of at least 8 held-out pictures that some feature shows: half or more of its 16 strongest
  pictures are of the class.
- ``distinct``: features left by a greedy cover, in which one is new when the cosine of its peaks with
  those of all before is below 0.9. It rewards noise: see ``visible``.
- ``visible``: the same among features whose 16 strongest pictures agree for the other network
  (external score of equal weights of at least 0.1).
- ``groups``: concepts as the product makes them (elude.exporter.naming.concepts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elude.exporter.naming.concepts import group
from elude.exporter.scoring.activity import Activity
from elude.exporter.scoring.measures import PURITY_TOP, TOP, purity
from elude.exporter.scoring.ms_score import external_scores, ms_score, peak_weights

FEW = 40  # strongest pictures of the first scores; the paper's TOP is the other
DISTINCT, VISIBLE = 0.9, 0.1
_BLOCK = 64


@dataclass(frozen=True)
class HeldOut:
    """Held-out pictures as one layer, another network and a person see them.

    Attributes:
        inputs: float (pictures, tokens, inputs), the layer's input.
        outputs: float32 (pictures, tokens, units), of all its units.
        external: float64 (pictures, dimensions), the other network's features less their mean.
        classes: of the pictures.
    """

    inputs: NDArray[np.floating]
    outputs: NDArray[np.float32]
    external: NDArray[np.float64]
    classes: list[str | None]

    @property
    def centre(self) -> NDArray[np.float64]:
        """float64 (units,): the mean output."""
        return self.outputs.mean(axis=(0, 1), dtype=np.float64)


class Features(Protocol):
    """Whatever has a value at each token of a held-out picture."""

    def __len__(self) -> int:
        """Number of features."""
        ...

    def values(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """(pictures, tokens, features) of the layer's ``inputs`` and ``outputs`` (pictures, tokens, …)."""
        ...


def activity(features: Features, held: HeldOut) -> Activity:
    """The features' activity over the kept tokens."""
    pictures, tokens, _ = held.inputs.shape
    peak, token = np.empty((pictures, len(features)), np.float32), np.empty((pictures, len(features)), np.int32)
    above, total = np.zeros(len(features)), np.zeros(len(features))
    for start in range(0, pictures, _BLOCK):
        rows = slice(start, start + _BLOCK)
        inputs, outputs = (torch.from_numpy(part[rows].astype(np.float32)) for part in (held.inputs, held.outputs))
        values = features.values(inputs, outputs)
        most, where = values.max(dim=1)
        peak[rows], token[rows] = most.numpy(), where.numpy()
        above += (values > 0).sum((0, 1)).numpy()
        total += values.sum((0, 1)).double().numpy()
    return Activity(peak, token, above / (pictures * tokens), total / (pictures * tokens), tokens)


def scores(features: Features, held: HeldOut) -> dict[str, float]:
    """All measures of some features (the module's list), means over those that are ever above 0."""
    seen = activity(features, held)
    live = seen.peak.max(axis=0) > 0
    centre = held.centre
    row = {
        "own": _own(seen, held.outputs, np.zeros_like(centre), FEW),
        "centred": _own(seen, held.outputs, centre, FEW),
        "external": external_scores(seen, held.external, FEW),
        "purity": purity(seen.strongest(PURITY_TOP), held.classes),
        "own_100": _own(seen, held.outputs, np.zeros_like(centre), TOP),
        "external_100": external_scores(seen, held.external, TOP),
    }
    agree = _agreement(seen, held.external) >= VISIBLE
    return {name: float(np.nanmean(values[live])) for name, values in row.items()} | {
        "covered": covered(seen.strongest(PURITY_TOP)[:, live], held.classes),
        "distinct": cover(seen.peak[:, live]),
        "visible": cover(seen.peak[:, live & agree]),
        "groups": len(group(seen.peak, {})),
        "dead": int((~live).sum()),
    }


def covered(strongest: NDArray[np.integer], classes: list[str | None]) -> int:
    """How many classes with enough held-out pictures fill half of some column of ``strongest`` (pictures, features)."""
    half = len(strongest) // 2
    names, codes, counts = np.unique(np.array(classes, str), return_inverse=True, return_counts=True)
    per_class = (codes[strongest][:, :, None] == np.arange(len(names))[counts >= half]).sum(axis=0)
    return int((per_class >= half).any(axis=0).sum())


def cover(peak: NDArray[np.float32], below: float = DISTINCT) -> int:
    """How many features a greedy cover leaves: one is new when its cosine with all left before is ``below``.

    Args:
        peak: (pictures, features); what is below 0 counts as 0.
        below: the cosine.
    """
    profiles = np.maximum(peak.T.astype(np.float64), 0)
    length = np.linalg.norm(profiles, axis=1, keepdims=True)
    profiles = profiles[length[:, 0] > 0] / length[length[:, 0] > 0]
    cosines, new = profiles @ profiles.T, np.empty(0, np.int64)
    for feature in range(len(profiles)):
        if not len(new) or cosines[feature, new].max() < below:
            new = np.append(new, feature)
    return len(new)


def random_pairs(held: HeldOut, seed: int) -> dict[str, float]:
    """The floor of each score: all pairs of pictures, each at one random token, and the purity of random pictures."""
    generator = np.random.default_rng(seed)
    pictures, tokens, _ = held.outputs.shape
    outputs = held.outputs[np.arange(pictures), generator.integers(tokens, size=pictures)].astype(np.float64)
    sets = np.stack([generator.choice(pictures, PURITY_TOP, replace=False) for _ in range(500)], axis=1)
    return {
        "own": ms_score(np.ones(pictures), _unit(outputs)),
        "centred": ms_score(np.ones(pictures), _unit(outputs - held.centre)),
        "external": ms_score(np.ones(pictures), _unit(held.external)),
        "purity": float(purity(sets, held.classes).mean()),
    }


def _own(seen: Activity, outputs: NDArray[np.float32], centre: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """float64 (features,): MS-Score of the layer's output at the features' peaks."""
    order, weights = seen.strongest(top), peak_weights(seen, top)
    token = np.take_along_axis(seen.token, order, axis=0)
    return np.array(
        [
            ms_score(weights[:, feature], _unit(outputs[order[:, feature], token[:, feature]] - centre))
            for feature in range(order.shape[1])
        ]
    )


def _agreement(seen: Activity, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (features,): mean cosine of the pairs of each feature's strongest pictures."""
    unit = _unit(embeddings)
    strongest = seen.strongest(PURITY_TOP)
    return np.array([ms_score(np.ones(len(rows)), unit[rows]) for rows in strongest.T])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
