"""MS-Score: how alike are the images that a unit or sub-unit answers to most?

Of the evaluation images take the K with the largest activation (over tokens); e_i is the layer's
output at that token, of unit length; w_i the activation, min-max normalised over all evaluation
images. The score is the weighted mean cosine similarity of all pairs,

    MS = sum_{i != j} w_i w_j e_i.e_j / sum_{i != j} w_i w_j = (|sum w e|^2 - sum w^2 |e|^2) / ((sum w)^2 - sum w^2)

(ELUDe, arXiv 2605.31304, section 4). The right-hand side needs sums only, so the outputs are never
stored: a second pass over the images adds each e where it is needed. Memory is two arrays
(features, units) per layer and family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elude.exporter.images import ImageSource
from elude.exporter.models.layers import Layer
from elude.exporter.models.tokens import to_tokens
from elude.exporter.models.walk import Calls, walk
from elude.exporter.progress import Progress
from elude.exporter.scoring.activity import Activity
from elude.handlers.images.preprocess import Preprocess

Key = tuple[str, str]  # layer, family


def ms_score(weights: NDArray[np.float64], embeddings: NDArray[np.float64]) -> float:
    """MS-Score of some images, by the closed form.

    Args:
        weights: (images,), in [0, 1].
        embeddings: (images, dimensions), of unit length, or zero.

    Returns:
        in [-1, 1]; NaN when fewer than two weights are above 0.
    """
    total = weights @ embeddings
    own = float(weights**2 @ (embeddings**2).sum(axis=1))
    return float(ratio(np.array([total @ total - own]), weights[:, None])[0])


@dataclass(frozen=True)
class Chosen:
    """The top images of each feature, as one list sorted by image.

    Attributes:
        weights: float64 (top, features), w of each feature's top images, strongest first.
        image: int64 (top * features,), ascending.
        feature: int64 (top * features,).
        token: int64 (top * features,), where the feature's peak is in the image.
        weight: float64 (top * features,), w of the image for the feature.
    """

    weights: NDArray[np.float64]
    image: NDArray[np.int64]
    feature: NDArray[np.int64]
    token: NDArray[np.int64]
    weight: NDArray[np.float64]


def choose(activity: Activity, top: int) -> Chosen:
    """The ``top`` strongest images of each feature, with weights that are 0 throughout where a feature is the same
    everywhere.
    """
    images, weights = activity.strongest(top), peak_weights(activity, top)
    order = np.argsort(images, axis=None, kind="stable")
    features = np.broadcast_to(np.arange(images.shape[1]), images.shape)
    token = np.take_along_axis(activity.token, images, axis=0).astype(np.int64)
    return Chosen(weights, images.ravel()[order], features.ravel()[order], token.ravel()[order], weights.ravel()[order])


def random_pairs(images: int, tokens: int) -> Chosen:
    """One feature that chooses all images alike, each at a random token: its score is the mean cosine of random pairs,
    the floor of every other.
    """
    rows, ones = np.arange(images), np.ones(images)
    token = np.random.default_rng(0).integers(tokens, size=images)
    return Chosen(ones[:, None], rows, np.zeros(images, np.int64), token, ones)


def peak_weights(activity: Activity, top: int) -> NDArray[np.float64]:
    """float64 (top, features): w of each feature's strongest images, strongest first."""
    peak = np.take_along_axis(activity.peak, activity.strongest(top), axis=0).astype(np.float64)
    lowest, highest = (bound.astype(np.float64) for bound in (activity.peak.min(axis=0), activity.peak.max(axis=0)))
    span = highest - lowest
    weights: NDArray[np.float64] = np.divide(peak - lowest, span, out=np.zeros_like(peak), where=span > 0)
    return weights


def concentrate(
    model: nn.Module,
    layers: Sequence[Layer],
    chosen: Mapping[Key, Chosen],
    centres: Mapping[str, NDArray[np.float64]],
    *,
    images: ImageSource,
    preprocess: Preprocess,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> dict[Key, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """MS-Scores of all features, in one pass over the images.

    Args:
        model: the original model.
        layers: of it.
        chosen: of each layer and family.
        centres: of each layer, the mean output (units,) that the second score takes off.
        images: the images that ``chosen`` counts.
        preprocess: of the model.
        batch_size: images per forward pass.
        progress: called with (images done, images).

    Returns:
        of each layer and family two arrays (features,): the score of outputs as they are, and of
        centred ones; NaN where 0/0.
    """
    sums = {
        key: [
            _Sum(of.weights.shape[1], len(centres[key[0]]), centre)
            for centre in (None, torch.from_numpy(centres[key[0]]))
        ]
        for key, of in chosen.items()
    }
    by_name = {layer.name: layer for layer in layers}

    def add(start: int, batch: int, calls: Calls) -> None:
        for key, of in chosen.items():
            z = to_tokens(calls[key[0]][1], by_name[key[0]], batch)
            rows = slice(*np.searchsorted(of.image, [start, start + batch]))
            outputs = z[torch.from_numpy(of.image[rows] - start), torch.from_numpy(of.token[rows])].double().cpu()
            for part in sums[key]:
                part.add(outputs, torch.from_numpy(of.feature[rows]), torch.from_numpy(of.weight[rows]))

    walk(model, layers, images, preprocess, add, batch_size=batch_size, progress=progress)
    return {
        key: (parts[0].finish(chosen[key].weights), parts[1].finish(chosen[key].weights)) for key, parts in sums.items()
    }


class _Sum:
    """sum w e and sum w^2 |e|^2 of each feature."""

    def __init__(self, features: int, units: int, centre: Tensor | None) -> None:
        self.total = torch.zeros(features, units, dtype=torch.float64)
        self.own = torch.zeros(features, dtype=torch.float64)
        self.centre = centre

    def add(self, outputs: Tensor, feature: Tensor, weight: Tensor) -> None:
        """Add the outputs (rows, units) to the features (rows,) with the weights (rows,)."""
        embedding = nn.functional.normalize(outputs if self.centre is None else outputs - self.centre, dim=1, eps=1e-30)
        self.total.index_add_(0, feature, embedding * weight[:, None])
        self.own.index_add_(0, feature, embedding.square().sum(1) * weight.square())

    def finish(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores (features,), given the weights (top, features)."""
        return ratio((self.total.square().sum(1) - self.own).numpy(), weights)


def ratio(numerator: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores (features,): numerator over (sum w)^2 - sum w^2, NaN where fewer than two weights are above 0."""
    denominator = weights.sum(axis=0) ** 2 - (weights**2).sum(axis=0)
    enough = (weights > 0).sum(axis=0) > 1
    scores = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=scores, where=enough)
    return scores
