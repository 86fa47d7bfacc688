"""Heat maps: where tokens lie, and 8-bit values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from handlers.heatmap import Grid, grid_of, heat_map


@pytest.mark.parametrize(
    ("tokens", "height", "width", "grid"),
    [
        (50, 28, 28, Grid(1, 7, 7)),  # ViT on 28 pixels, patch 4, class token
        (197, 224, 224, Grid(1, 14, 14)),
        (1374, 518, 518, Grid(5, 37, 37)),  # DINOv2 with registers
        (49, 224, 224, Grid(0, 7, 7)),  # last stage of a ConvNeXt
        (1, 224, 224, Grid(0, 1, 1)),
        (129, 128, 256, Grid(1, 8, 16)),
        (2, 28, 28, Grid(0, 1, 2)),
    ],
)
def test_grid(tokens: int, height: int, width: int, grid: Grid) -> None:
    assert grid_of(tokens, height, width) == grid


def test_heat_map_by_hand() -> None:
    activation = np.array([9, 1, -2, 0.5, 2], np.float32)
    expected = {"rows": 2, "columns": 2, "maximum": 2.0, "values": [[128, 0], [64, 255]]}
    assert heat_map(activation, Grid(1, 2, 2), "grid") == expected


def test_nothing_above_zero_is_black() -> None:
    assert heat_map(np.array([-1, 0], np.float32), Grid(0, 1, 2), "grid")["values"] == [[0, 0]]
