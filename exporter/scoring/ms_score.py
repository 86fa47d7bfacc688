"""MS-Score: how alike are the images that a unit or sub-unit answers to most?

Of the evaluation images take the K with the largest activation (over tokens); e_i is the layer's
output at that token, of unit length; w_i the activation, min-max normalised over all evaluation
images. The score is the weighted mean cosine similarity of all pairs,

    MS = sum_{i != j} w_i w_j e_i.e_j / sum_{i != j} w_i w_j = (|sum w e|^2 - sum w^2 |e|^2) / ((sum w)^2 - sum w^2)

(ELUDe, arXiv 2605.31304, section 4). The right-hand side needs sums only, so the outputs are never
stored: a second pass over the images adds each e where it is needed. Memory is two arrays
(features, units) per layer and family. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from elude.exporter.scoring.activity import Activity

Key = tuple[str, str]  # layer, family
Visit = Callable[[int, int, Mapping[str, Any]], None]
_SHORTEST = 1e-30  # a shorter output has no direction


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
    chosen: Mapping[Key, Chosen],
    centres: Mapping[str, NDArray[np.float64]],
    each_batch: Callable[[Visit], None],
) -> dict[Key, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """MS-Scores of all features, in one pass over the images.

    Args:
        chosen: of each layer and family.
        centres: of each layer, the mean output (units,) that the second score takes off.
        each_batch: calls what it is given with each batch of the images that ``chosen`` counts: the first image's
            number, how many there are, and of each layer the output (batch, tokens, units), of torch or numpy.

    Returns:
        of each layer and family two arrays (features,): the score of outputs as they are, and of
        centred ones; NaN where 0/0.
    """
    sums = {
        key: [_Sum(of.weights.shape[1], len(centres[key[0]]), centre) for centre in (None, centres[key[0]])]
        for key, of in chosen.items()
    }

    def add(start: int, batch: int, outputs: Mapping[str, Any]) -> None:
        for key, of in chosen.items():
            rows = slice(*np.searchsorted(of.image, [start, start + batch]))
            picked = outputs[key[0]][of.image[rows] - start, of.token[rows]]
            host = picked if isinstance(picked, np.ndarray) else picked.cpu().numpy()
            for part in sums[key]:
                part.add(host.astype(np.float64), of.feature[rows], of.weight[rows])

    each_batch(add)
    return {
        key: (parts[0].finish(chosen[key].weights), parts[1].finish(chosen[key].weights)) for key, parts in sums.items()
    }


class _Sum:
    """sum w e and sum w^2 |e|^2 of each feature."""

    def __init__(self, features: int, units: int, centre: NDArray[np.float64] | None) -> None:
        self.total = np.zeros((features, units))
        self.own = np.zeros(features)
        self.centre = centre

    def add(self, outputs: NDArray[np.float64], feature: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        """Add the outputs (rows, units) to the features (rows,) with the weights (rows,)."""
        embedding = outputs if self.centre is None else outputs - self.centre
        embedding = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), _SHORTEST)
        count = len(self.own)
        self.total += csr_array((weight, (feature, np.arange(len(feature)))), (count, len(feature))) @ embedding
        self.own += np.bincount(feature, np.square(embedding).sum(axis=1) * np.square(weight), count)

    def finish(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores (features,), given the weights (top, features)."""
        return ratio(np.square(self.total).sum(axis=1) - self.own, weights)


def ratio(numerator: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores (features,): numerator over (sum w)^2 - sum w^2, NaN where fewer than two weights are above 0."""
    denominator = weights.sum(axis=0) ** 2 - (weights**2).sum(axis=0)
    enough = (weights > 0).sum(axis=0) > 1
    scores = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=scores, where=enough)
    return scores


def external_scores(activity: Activity, embeddings: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """float64 (features,): MS-Score of each feature's ``top`` images by ``embeddings`` (images, dimensions);

    NaN where 0/0.

    Give embeddings less their mean for the centred score.
    """
    order, weights = activity.strongest(top), peak_weights(activity, top)
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = np.divide(embeddings, length, out=np.zeros_like(embeddings), where=length > 0)
    numerator = np.empty(order.shape[1])
    for feature in range(order.shape[1]):
        rows = unit[order[:, feature]] * weights[:, feature, None]
        numerator[feature] = np.square(rows.sum(axis=0)).sum() - np.square(rows).sum()
    return ratio(numerator, weights)
