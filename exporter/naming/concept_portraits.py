"""Concepts beside one another: how strong each is on every image, which are alike, and a map of all.

With m_s the largest activation of sub-unit s on all images and p_s(i) that on image i, the strength of
concept c on i is the mean over its sub-units of max(p_s(i), 0) / m_s: what ``inspect`` calls
``relative``. Two concepts are as alike as Pearson's correlation of their strengths. The map is the
first two principal components of the standardised strengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from elude.exporter.naming.neighbours import profiles
from elude.handlers.bundle.catalogue_schema import ConceptPortrait, ConceptRow, Top

BINS = 20
RELATED = 5  # most similar, and as many most opposite


def strengths(peak: NDArray[np.float32], concepts: Sequence[ConceptRow]) -> NDArray[np.float32]:
    """float32 (images, concepts) of ``peak``, float32 (images, sub-units)."""
    positive = np.maximum(peak, 0)
    maxima = positive.max(axis=0)
    relative = np.divide(positive, maxima, out=np.zeros_like(positive), where=maxima > 0)
    columns = [relative[:, list(concept.members)].mean(axis=1) for concept in concepts]
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.empty((len(peak), 0), np.float32)


def portraits(
    peak: NDArray[np.float32], token: NDArray[np.integer], concepts: Sequence[ConceptRow], tops: int
) -> list[ConceptPortrait]:
    """The portrait of each concept.

    Args:
        peak: float32 (images, sub-units), the largest activation over the tokens of each image.
        token: integers (images, sub-units), where it is.
        concepts: of these sub-units.
        tops: strongest images of each at most.
    """
    strength = strengths(peak, concepts)
    scaled = profiles(strength)
    similar = scaled @ scaled.T
    np.fill_diagonal(similar, 0)
    places = map_places(scaled)
    found = []
    for row, (concept, place) in enumerate(zip(concepts, places.tolist(), strict=True)):
        values, where = strength[:, row], token[:, concept.members[0]]
        strongest = [image for image in np.argsort(-values, kind="stable")[:tops].tolist() if values[image] > 0]
        found.append(
            ConceptPortrait(
                concept.number,
                (place[0], place[1]),
                tuple(np.histogram(values, BINS, (0, 1))[0].tolist()),
                _related(similar[row], concepts),
                tuple(Top(image, int(where[image]), float(values[image])) for image in strongest),
            )
        )
    return found


def map_places(scaled: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 (concepts, 2) within -1 to 1, of rows of ``profiles``.

    The sign of a component is free: it is chosen such that its entry of largest magnitude is positive.
    """
    places = np.zeros((len(scaled), 2))
    if len(scaled) < 3:
        return places + np.linspace(-0.5, 0.5, len(scaled))[:, None] * [1, 0]
    components = min(2, *scaled.shape)
    places[:, :components] = PCA(components, svd_solver="randomized", random_state=0).fit_transform(scaled)
    largest = np.take_along_axis(places, np.abs(places).argmax(axis=0)[None], axis=0)
    places *= np.where(largest < 0, -1, 1) / max(float(np.abs(places).max()), 1e-12)
    return places.round(4)


def _related(similar: NDArray[np.float32], concepts: Sequence[ConceptRow]) -> tuple[tuple[int, float], ...]:
    """The most correlated ones, then the most anticorrelated."""
    order = np.argsort(-similar, kind="stable")
    alike = [i for i in order[:RELATED].tolist() if similar[i] > 0]
    opposite = [i for i in order[-RELATED:].tolist() if similar[i] < 0]
    return tuple((concepts[i].number, float(np.clip(similar[i], -1, 1))) for i in [*alike, *opposite])
