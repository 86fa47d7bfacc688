"""A concept's portrait: strengths, histogram, relatives and place, against plain computations."""

from __future__ import annotations

import numpy as np

from elude.exporter.naming.concept_portraits import portraits, strengths
from elude.handlers.bundle.catalogue_schema import ConceptRow

CONCEPTS = [
    ConceptRow(0, "a", 1.0, None, (0, 1)),
    ConceptRow(1, "b", 1.0, None, (2,)),
    ConceptRow(2, "c", 1.0, None, (3,)),
]


def activations(images: int = 200) -> np.ndarray:
    """Sub-units 0, 1 and 2 follow one thing, 3 its opposite; all below 0 on some images."""
    rng = np.random.default_rng(0)
    thing = rng.random(images)
    columns = [3 * thing, 0.5 * thing + 0.01 * rng.random(images), thing + 0.1 * rng.random(images), 1 - thing]
    return np.stack(columns, axis=1).astype(np.float32) - 0.05


def test_strength_is_the_mean_of_the_members_relative_activations() -> None:
    peak = activations()
    expected = [np.mean([max(peak[i, s], 0) / peak[:, s].max() for s in (0, 1)]) for i in range(len(peak))]
    np.testing.assert_allclose(strengths(peak, CONCEPTS)[:, 0], expected, rtol=1e-5)
    assert strengths(-np.ones((4, 4), np.float32), CONCEPTS).max() == 0


def test_relatives_are_the_correlations_of_strengths() -> None:
    peak = activations()
    first, second, third = portraits(peak, np.zeros(peak.shape, np.int32), CONCEPTS, 3)
    expected = np.corrcoef(strengths(peak, CONCEPTS).T)
    assert [number for number, _ in first.related] == [1, 2]
    np.testing.assert_allclose([value for _, value in first.related], expected[0, 1:], atol=1e-5)
    assert [number for number, _ in third.related][-1] in (0, 1)
    assert third.related[-1][1] < 0 < second.related[0][1]


def test_the_histogram_counts_every_image_once_and_tops_are_the_strongest() -> None:
    peak = activations()
    token = np.arange(peak.size).reshape(peak.shape)
    portrait = portraits(peak, token, CONCEPTS, 3)[0]
    strength = strengths(peak, CONCEPTS)[:, 0]
    assert sum(portrait.histogram) == len(peak)
    low, high = 0.5, 0.55
    assert portrait.histogram[10] == ((strength >= low) & (strength < high)).sum()
    order = np.argsort(-strength)[:3]
    assert [top.image for top in portrait.tops] == order.tolist()
    assert [top.token for top in portrait.tops] == token[order, 0].tolist()


def test_alike_concepts_lie_near_one_another_on_the_map() -> None:
    peak = activations()
    places = [np.array(portrait.place) for portrait in portraits(peak, np.zeros(peak.shape, np.int32), CONCEPTS, 3)]
    assert np.linalg.norm(places[0] - places[1]) < 0.2 * np.linalg.norm(places[0] - places[2])
    assert np.abs(places).max() == 1


def test_few_concepts_have_a_portrait_too() -> None:
    peak = activations()
    for count in range(3):
        assert len(portraits(peak, np.zeros(peak.shape, np.int32), CONCEPTS[:count], 3)) == count
