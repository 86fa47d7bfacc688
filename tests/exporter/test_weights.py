"""Sub-unit weights re-sum bit for bit at any magnitude and in any order; splits survive the disk."""

import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from elude.exporter.splitting.layer_split import LayerSplit, full_masks, whole
from elude.exporter.splitting.split_file import load_splits, save_splits
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.handlers.errors import BundleError, UnsupportedLayerError

EXTREMES = [
    0.0,
    -0.0,
    1e30,
    -1e30,
    1.7e38,
    1e-45,
    -1e-45,
    3e-45,
    1.1754944e-38,
    -1.1754942e-38,
    1.0,
    1 / 3,
    -7e-42,
    16777215.0,
]


def random_split(rng: np.random.Generator, units: int, inputs: int, most: int = 6) -> LayerSplit:
    """A valid split with random masks and 1 to ``most`` parts."""
    parts = rng.integers(1, most + 1, units)
    parts[0] = most
    full = full_masks(parts)[:, None]
    masks = rng.integers(0, 2**64, (units, inputs), dtype=np.uint64) & full
    masks = np.where(masks == 0, full, masks)
    count = int(parts.sum())
    return LayerSplit(
        "a.b", parts, masks, rng.random(units, np.float32), rng.standard_normal((count, inputs), np.float32)
    )


def resum(values: np.ndarray, split: LayerSplit, order: np.ndarray | None = None) -> np.ndarray:
    """Add each unit's rows one after another in the arrays' own type, in ascending or in a given order."""
    total = np.zeros((len(split.parts), *values.shape[1:]), values.dtype)
    for row in np.arange(split.sub_units) if order is None else order:
        total[split.parent[row]] += values[row]
    return total


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 3, 7, 64]),
    st.lists(
        st.one_of(st.sampled_from(EXTREMES), st.floats(-(2.0**126), 2.0**126, width=32)), min_size=12, max_size=12
    ),
)
def test_weights_and_bias_resum_exactly_in_any_order(seed: int, most: int, values: list[float]) -> None:
    rng = np.random.default_rng(seed)
    split = random_split(rng, 3, 4, most)
    weight = np.array(values, np.float32).reshape(3, 4)
    bias = weight[:, 0].copy()
    shared, shared_bias = sub_unit_weights(weight, split), sub_unit_bias(bias, split)
    assert shared.dtype == shared_bias.dtype == np.float32
    for order in (None, rng.permutation(split.sub_units)):
        np.testing.assert_array_equal(resum(shared, split, order), weight)
        np.testing.assert_array_equal(resum(shared_bias, split, order), bias)
    assert (shared[~split.members] == 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 64]))
def test_each_share_is_within_its_bound(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    split = random_split(rng, 3, 4, most)
    weight = (rng.standard_normal((3, 4)) * 10.0 ** rng.integers(-44, 30, (3, 4))).astype(np.float32)
    exact = weight[split.parent].astype(np.float64) * split.shares()
    bound = most * np.spacing(np.abs(weight)).astype(np.float64)[split.parent]
    assert (np.abs(sub_unit_weights(weight, split) - exact) <= bound).all()


def test_plain_rounding_would_not_resum() -> None:
    """What the integers are for: shares that are merely rounded add up to something else."""
    rng = np.random.default_rng(0)
    split = random_split(rng, 50, 40, 7)
    weight = rng.standard_normal((50, 40)).astype(np.float32)
    naive = (weight[split.parent] * split.shares()).astype(np.float32)
    assert not np.array_equal(resum(naive, split), weight)
    np.testing.assert_array_equal(resum(sub_unit_weights(weight, split), split), weight)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 2)])
def test_every_type_and_kernel(dtype: type, kernel: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    split = random_split(rng, 8, 5)
    weight = rng.standard_normal((8, 5, *kernel)).astype(dtype)
    shared = sub_unit_weights(weight, split)
    assert shared.shape == (split.sub_units, 5, *kernel)
    assert shared.dtype == dtype
    np.testing.assert_array_equal(resum(shared, split), weight)


def test_hand_worked_shares_of_a_weight_and_bias() -> None:
    split = LayerSplit(
        "l",
        np.array([2]),
        np.array([[0b01, 0b10, 0b11, 0b11]], np.uint64),
        np.ones(1, np.float32),
        np.zeros((2, 4), np.float32),
    )
    np.testing.assert_array_equal(
        sub_unit_weights(np.array([[1, 2, 3, 4]], np.float32), split), [[1, 0, 1.5, 2], [0, 2, 1.5, 2]]
    )
    np.testing.assert_array_equal(sub_unit_bias(np.array([8], np.float32), split), [4, 4])
    np.testing.assert_array_equal(sub_unit_bias(None, split), [0, 0])


def test_unfit_and_infinite_weights_are_refused() -> None:
    split = whole("blocks.1.fc", 2, 3)
    with pytest.raises(UnsupportedLayerError, match=r"blocks\.1\.fc"):
        sub_unit_weights(np.zeros((3, 2), np.float32), split)
    for bad in (math.inf, math.nan):
        with pytest.raises(UnsupportedLayerError, match="NaN or infinite"):
            sub_unit_weights(np.full((2, 3), bad, np.float32), split)
    with pytest.raises(UnsupportedLayerError, match="more than half of the largest float32"):
        sub_unit_weights(np.full((2, 3), 2e38, np.float32), split)


def test_splits_survive_the_disk_in_order_and_to_the_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    splits = [
        LayerSplit(name, *list(vars(random_split(rng, 5, 7, 64)).values())[1:]) for name in ("z.fc2", "a.fc1", "m")
    ]
    save_splits(splits, tmp_path / "one.safetensors")
    save_splits(splits, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    loaded = load_splits(tmp_path / "one.safetensors")
    assert [split.layer for split in loaded] == ["z.fc2", "a.fc1", "m"]
    for before, after in zip(splits, loaded, strict=True):
        for name in ("parts", "masks", "rho", "representatives"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
            assert getattr(before, name).dtype == getattr(after, name).dtype


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "split.safetensors"
    with pytest.raises(BundleError, match=r"split\.safetensors"):
        load_splits(path)
    save_splits([whole("fc", 2, 3)], path)
    good = path.read_bytes()
    path.write_bytes(good[:-5])
    with pytest.raises(BundleError, match=r"split\.safetensors"):
        load_splits(path)
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(1)}))
    with pytest.raises(BundleError, match="schema version None"):
        load_splits(path)
    path.write_bytes(
        safetensors.numpy.save({"x": np.zeros(1)}, metadata={"elude": '{"schema_version": 1, "layers": ["fc"]}'})
    )
    with pytest.raises(BundleError, match="no readable splits"):
        load_splits(path)
    tensors = safetensors.numpy.load(good)
    tensors["fc/masks"] = np.zeros((2, 3), np.uint64)
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"elude": '{"schema_version": 1, "layers": ["fc"]}'}))
    with pytest.raises(BundleError, match="mask"):
        load_splits(path)
