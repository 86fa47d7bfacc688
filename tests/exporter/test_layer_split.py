"""A split's data: hand-worked shares, and refusal of what is not a split."""

import numpy as np
import pytest

from elude.exporter.splitting.layer_split import LayerSplit, full_masks, whole


def tiny() -> LayerSplit:
    """Unit 0: two sub-units over three inputs; unit 1 whole; unit 2: three sub-units."""
    masks = np.array([[0b01, 0b10, 0b11], [1, 1, 1], [0b101, 0b111, 0b010]], np.uint64)
    return LayerSplit(
        "fc", np.array([2, 1, 3]), masks, np.array([0.5, np.nan, 1], np.float32), np.zeros((6, 3), np.float32)
    )


def test_hand_worked_shares_and_indices() -> None:
    split = tiny()
    third = 1 / 3
    expected = [[1, 0, 0.5], [0, 1, 0.5], [1, 1, 1], [0.5, third, 0], [0, third, 1], [0.5, third, 0]]
    np.testing.assert_allclose(split.shares(), expected, rtol=0, atol=1e-16)
    np.testing.assert_allclose(split.omega(), np.mean(expected, axis=1), rtol=0, atol=1e-16)
    assert (split.sub_units, split.expansion_factor) == (6, 2.0)
    assert split.first.tolist() == [0, 2, 3]
    assert split.parent.tolist() == [0, 0, 1, 2, 2, 2]
    assert split.part.tolist() == [0, 1, 0, 0, 1, 2]


def test_full_masks_reach_sixty_four_bits() -> None:
    assert full_masks(np.array([1, 2, 63, 64])).tolist() == [1, 3, 2**63 - 1, 2**64 - 1]


def test_whole_splits_nothing() -> None:
    split = whole("fc", 4, 3)
    assert split.sub_units == 4
    assert (split.shares() == 1).all()


@pytest.mark.parametrize("mask", [0, 0b100])
def test_a_mask_without_or_with_foreign_sub_units_is_refused(mask: int) -> None:
    with pytest.raises(ValueError, match="mask"):
        LayerSplit(
            "fc", np.array([2]), np.array([[1, mask]], np.uint64), np.zeros(1, np.float32), np.zeros((2, 2), np.float32)
        )


@pytest.mark.parametrize("parts", [0, 65])
def test_too_few_or_many_parts_are_refused(parts: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 64"):
        LayerSplit(
            "fc", np.array([parts]), np.ones((1, 2), np.uint64), np.zeros(1, np.float32), np.zeros((1, 2), np.float32)
        )


def test_arrays_of_other_units_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        LayerSplit(
            "fc", np.array([1, 1]), np.ones((1, 2), np.uint64), np.zeros(1, np.float32), np.zeros((1, 2), np.float32)
        )
