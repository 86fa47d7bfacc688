"""Concepts: sub-units that answer to the same images are one, whatever their unit; others stay apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from elude.exporter.naming.concepts import AGREEMENT, group, name_concepts


def activations(follows: list[int], images: int = 60, noise: float = 0.05) -> NDArray[np.float32]:
    """Sub-unit s is active on images whose number leaves the remainder ``follows[s]`` when divided by 5."""
    rng = np.random.default_rng(0)
    peak = np.stack([(np.arange(images) % 5 == kind).astype(float) for kind in follows], axis=1)
    return (peak + noise * rng.random(peak.shape)).astype(np.float32)


def test_sub_units_of_one_pattern_are_one_concept_and_the_largest_is_first() -> None:
    concepts = group(activations([0, 1, 0, 2, 0, 1]), {})
    assert [sorted(concept.members) for concept in concepts] == [[0, 2, 4], [1, 5], [3]]
    assert [concept.id for concept in concepts] == ["c0", "c1", "c2"]
    assert all(concept.agreement > 0.9 for concept in concepts)


def test_the_most_typical_member_is_first() -> None:
    peak = activations([0, 0, 0])
    peak[:, 1] += activations([1], noise=0)[:, 0] * 0.4  # half a concept of its own
    (concept,) = group(peak, {})
    assert concept.members[-1] == 1


def test_a_sub_unit_that_is_never_active_is_in_no_concept() -> None:
    peak = activations([0, 0, 1])
    peak[:, 2] = -1.0
    assert [sorted(concept.members) for concept in group(peak, {})] == [[0, 1]]


def test_activations_below_zero_say_nothing() -> None:
    peak = activations([0, 0])
    changed = peak.copy()
    changed[:, 1] -= 0.06  # the noise falls below 0
    assert len(group(changed, {})) == 1


def test_purity_is_of_the_images_where_the_concept_is_strongest() -> None:
    classes = [f"class {image % 5}" for image in range(100)]
    concepts = group(activations([0, 0, 3], images=100), {}, classes)
    assert [concept.purity for concept in concepts] == [1.0, 1.0]
    assert group(activations([0, 0]), {})[0].purity is None


def test_names_are_the_majoritys_and_used_once() -> None:
    names = {0: "shoe", 1: "shoe", 2: "bag", 3: "shoe", 4: None, 5: "bag", 6: "dress"}
    assert name_concepts([[0, 1, 2], [3], [4], [5, 6]], names) == ["shoe", "shoe 2", None, "bag"]
    assert name_concepts([[0, 2, 6]], names) == [None]  # each a third


@pytest.mark.parametrize("count", [0, 1])
def test_few_sub_units(count: int) -> None:
    assert len(group(activations([0] * count) if count else np.empty((5, 0), np.float32), {})) == count


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.integers(0, 100))
def test_every_active_sub_unit_is_in_one_concept_and_groups_agree_on_average(follows: list[int], seed: int) -> None:
    peak = activations(follows) + np.random.default_rng(seed).random((60, len(follows))).astype(np.float32)
    concepts = group(peak, {})
    assert sorted(index for concept in concepts for index in concept.members) == list(range(len(follows)))
    correlation = np.corrcoef(peak.T)  # brute force: mean correlation between any two groups is below the threshold
    for i, one in enumerate(concepts):
        for other in concepts[:i]:
            assert correlation[np.ix_(one.members, other.members)].mean() < AGREEMENT + 1e-6
