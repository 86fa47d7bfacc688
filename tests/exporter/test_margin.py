"""The margin rule against a search over all sets of clusters, and by hand."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from elude.exporter.splitting.margin import MARGINS, winning_masks
from elude.handlers.errors import UsageError


def brute_force(sizes: np.ndarray, rho: float, rule: str) -> int:
    """Try every proper, non-empty set of clusters for one input, in float64, straight from the definition."""
    count = len(sizes)
    winners = [
        chosen
        for size in range(1, count)
        for chosen in combinations(range(count), size)
        if rho * min(sizes[c] for c in chosen) > max(sizes[c] for c in range(count) if c not in chosen)
    ]
    if not winners or (rule == "literal" and len(winners) > 1):
        return 2**count - 1
    return sum(1 << c for c in winners[0])


values = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.25, 0.95]), st.floats(-1, 1, width=32))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 6).flatmap(lambda k: arrays(np.float32, (k, 4), elements=values)),
    st.sampled_from(["literal", "smallest"]),
)
def test_masks_equal_a_search_over_all_sets(representatives: np.ndarray, rule: str) -> None:
    got = winning_masks(representatives, MARGINS, rule)
    sizes = np.abs(representatives.astype(np.float64))
    expected = [[brute_force(sizes[:, j], rho, rule) for j in range(4)] for rho in MARGINS]
    np.testing.assert_array_equal(got, np.array(expected, np.uint64))


@pytest.mark.parametrize(
    ("sizes", "rho", "literal", "smallest"),
    [
        ([0.9, 0.1, 0.2], 0.5, 0b001, 0b001),  # only {0}: 0.5 * 0.2 equals 0.1, so {0, 2} does not win
        ([0.9, 0.05, 0.2], 0.5, 0b111, 0b001),  # {0} and {0, 2} both win: literal shares by all
        ([0.9, 0.8, 0.1], 0.5, 0b011, 0b011),  # only {0, 1}
        ([0.1, -0.9, 0.1], 0.5, 0b010, 0b010),  # only {1}: the sign does not matter, the tie of the others neither
        ([0.5, 0.5, 0.5], 1.0, 0b111, 0b111),  # ties never win
        ([0.0, 0.0, 0.0], 1.0, 0b111, 0b111),  # nobody contributes: shared by all
        ([0.0, 0.0, 0.1], 0.05, 0b100, 0b100),
        ([0.4, 0.2, 0.0], 0.5, 0b011, 0b011),  # 0.5 * 0.4 equals 0.2: {0} does not win
    ],
)
def test_hand_worked_inputs(sizes: list[float], rho: float, literal: int, smallest: int) -> None:
    representatives = np.array(sizes, np.float32)[:, None]
    assert winning_masks(representatives, np.array([rho]), "literal")[0, 0] == literal
    assert winning_masks(representatives, np.array([rho]), "smallest")[0, 0] == smallest


def test_margins_are_those_of_the_paper() -> None:
    assert [f"{margin:.2f}" for margin in MARGINS] == [f"{i * 0.05:.2f}" for i in range(1, 21)]


def test_sixty_four_clusters_fit_the_mask() -> None:
    representatives = np.zeros((64, 1), np.float32)
    representatives[63] = 1
    assert winning_masks(representatives, np.array([0.5]), "literal")[0, 0] == np.uint64(1) << np.uint64(63)
    assert winning_masks(np.ones((64, 1), np.float32), np.array([0.5]), "smallest")[0, 0] == np.uint64(2**64 - 1)


def test_unknown_rules_and_margins_are_refused() -> None:
    ones = np.ones((2, 1), np.float32)
    with pytest.raises(UsageError, match="gap"):
        winning_masks(ones, MARGINS, "gap")
    for margin in (0.0, 1.5, np.nan):
        with pytest.raises(UsageError, match="outside"):
            winning_masks(ones, np.array([margin]), "literal")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5).flatmap(lambda k: arrays(np.float32, (k, 4), elements=values)))
def test_signed_shares_tell_the_clusters_apart_best(representatives: np.ndarray) -> None:
    """Of all ways to give each input to one cluster, none makes sum over c of w^c .

    (r_c - mean of the others) larger.
    """
    masks = winning_masks(representatives, MARGINS, "signed")
    assert (masks == masks[0]).all()
    r = representatives.astype(np.float64)
    count = len(r)
    if count == 1:
        assert (masks == 1).all()
        return
    worth = r - (r.sum(axis=0) - r) / (
        count - 1
    )  # (clusters, inputs): what the input adds to the aim if this cluster has it
    for j, mask in enumerate(masks[0]):
        chosen = [c for c in range(count) if int(mask) >> c & 1]
        if representatives[:, j].any():
            assert len(chosen) == 1
            assert worth[chosen[0], j] == pytest.approx(worth[:, j].max())
        else:
            assert len(chosen) == count  # nobody contributes: shared by all


def test_signed_gives_an_input_that_holds_back_to_the_cluster_it_holds_back_least() -> None:
    representatives = np.array([[-0.9, 0.2], [-0.1, -0.8], [-0.5, 0.2]], np.float32)
    assert winning_masks(representatives, np.array([0.5]), "signed").tolist() == [
        [0b010, 0b001]
    ]  # of equal ones the first


tenths = st.integers(-20, 20).map(float)  # differences that meet a tenth of the range exactly are among them


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 6).flatmap(lambda k: arrays(np.float32, (k, 4), elements=tenths)))
def test_near_ties_is_the_largest_set_whose_members_reach_nine_tenths(representatives: np.ndarray) -> None:
    """A search over all sets, in fractions: what an input adds to the sum over c of w^c . (r_c - mean of the
    others) if a cluster has it alone, from 0 for the worst cluster to 1 for the best.
    """
    masks = winning_masks(representatives, MARGINS, "near-ties")
    assert (masks == masks[0]).all()
    count = len(representatives)
    for j in range(4):
        r = [Fraction(float(value)) for value in representatives[:, j]]
        worth = [r[c] - (sum(r) - r[c]) / (count - 1) for c in range(count)]
        reach = max(worth) - min(worth)
        good = [
            chosen
            for size in range(1, count + 1)
            for chosen in combinations(range(count), size)
            if all(10 * (max(worth) - worth[c]) <= reach for c in chosen)
        ]
        assert int(masks[0, j]) == sum(1 << c for c in good[-1])
        assert 10 * (max(worth) - sum(worth[c] for c in good[-1]) / len(good[-1])) <= reach


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6).flatmap(lambda k: arrays(np.float32, (k, 4), elements=tenths)),
    st.sampled_from([0.25, 1.0, 8.0]),
    tenths,
)
def test_near_ties_forget_scale_and_what_the_clusters_share(
    representatives: np.ndarray, scale: float, shift: float
) -> None:
    moved = representatives * np.float32(scale) + np.float32(shift)
    np.testing.assert_array_equal(
        winning_masks(moved, MARGINS, "near-ties"), winning_masks(representatives, MARGINS, "near-ties")
    )


@pytest.mark.parametrize(
    ("values", "near_ties", "signed"),
    [
        ([1.0, 0.95, 0.0], 0b011, 0b001),  # the second is within a tenth of the range
        ([1.0, 0.85, 0.0], 0b001, 0b001),
        ([1.0, 0.95, 0.9], 0b001, 0b001),  # the same distance, but the range is small
        ([1.0, 0.95], 0b01, 0b01),  # of two, one is the worst
        ([0.5, 0.5], 0b11, 0b01),
        ([-0.1, -0.9, -0.15], 0b101, 0b001),
        ([0.0, 0.0, 0.0], 0b111, 0b111),
    ],
)
def test_hand_worked_near_ties(values: list[float], near_ties: int, signed: int) -> None:
    representatives = np.array(values, np.float32)[:, None]
    assert winning_masks(representatives, np.array([0.5]), "near-ties").tolist() == [[near_ties]]
    assert winning_masks(representatives, np.array([0.5]), "signed").tolist() == [[signed]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6).flatmap(lambda k: arrays(np.float32, (k, 4), elements=st.floats(-1, 1, width=32))))
def test_near_ties_always_hold_the_signed_winner(representatives: np.ndarray) -> None:
    near, signed = (winning_masks(representatives, np.ones(1), rule)[0] for rule in ("near-ties", "signed"))
    some = representatives.any(axis=0)
    assert ((near & signed)[some] == signed[some]).all()
