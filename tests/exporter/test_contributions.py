"""Contributions sum to the unit without its bias, for every layer kind, and extreme values stay finite."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from elude.exporter.models.layers import find_layers
from elude.exporter.splitting.contributions import blocks, contributions, layer_weight, normalise, top_rows
from elude.handlers.errors import UsageError


@dataclass(frozen=True)
class Probed:
    """As much of a probe as contributions read."""

    q: np.ndarray
    z: np.ndarray


def unfold(module: nn.Module, x: torch.Tensor) -> np.ndarray:
    """(instances, channels, window) of every location: torch's own unfolding, independent of the code under test."""
    if isinstance(module, nn.Linear):
        return x.numpy()[:, :, None]
    columns = nn.functional.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    window = module.kernel_size[0] * module.kernel_size[1]
    return columns.unflatten(1, (-1, window)).permute(0, 3, 1, 2).flatten(0, 1).numpy()


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(6, 4),
        nn.Linear(6, 4, bias=False),
        nn.Conv2d(6, 4, 1),
        nn.Conv2d(6, 4, 3, stride=2, padding=1),
        nn.Conv2d(6, 4, (3, 2), groups=2, bias=False),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 12, 3, dilation=2, groups=6),
    ],
    ids=str,
)
def test_contributions_sum_to_the_unit_without_bias(module: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6) if isinstance(module, nn.Linear) else torch.randn(2, 6, 8, 7)
    layer = find_layers(nn.Sequential(module), "0")[0]
    with torch.no_grad():
        z = module(x)
    z = z.numpy() if z.ndim == 2 else z.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    probe = Probed(unfold(module, x), z)
    rows = np.array([0, 3, len(z) - 1])
    for unit in range(layer.units):
        got = contributions(probe.q, layer_weight(layer), unit, rows)[:]
        assert got.shape == (3, layer.inputs)
        bias = 0 if module.bias is None else module.bias[unit].item()
        np.testing.assert_allclose(got.sum(axis=1) + bias, z[rows, unit], rtol=0, atol=1e-5)


def test_blocks_cover_all_rows_once() -> None:
    for count in (0, 1, 2_048, 2_049, 9_999):
        assert np.concatenate([np.empty(0, int), *(np.arange(count)[rows] for rows in blocks(count))]).tolist() == list(
            range(count)
        )


def test_top_rows_are_the_largest_with_ties_to_the_lowest_index() -> None:
    values = np.array([1, 5, 3, 3, 9, 3], np.float32)
    assert top_rows(values, 3).tolist() == [1, 2, 4]
    assert top_rows(values, 4).tolist() == [1, 2, 3, 4]
    assert top_rows(values, 99).tolist() == list(range(6))
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.integers(0, 6, 40).astype(np.float32)
        count = int(rng.integers(1, 40))
        assert top_rows(values, count).tolist() == sorted(np.lexsort((np.arange(40), -values))[:count].tolist())


def test_top_rows_refuses_what_is_not_finite() -> None:
    with pytest.raises(UsageError, match="NaN"):
        top_rows(np.array([1, np.nan], np.float32), 1)


def test_normalise_survives_zeros_and_extremes() -> None:
    tiny = np.float32(1e-44)
    rows = np.array([[3, 4], [0, 0], [3e38, 3e38], [tiny, 0], [1e-30, -1e-30]], np.float32)
    root = np.sqrt(0.5)
    np.testing.assert_allclose(normalise(rows), [[0.6, 0.8], [0, 0], [root, root], [1, 0], [root, -root]], rtol=1e-6)
    assert normalise(np.zeros((0, 3), np.float32)).shape == (0, 3)
