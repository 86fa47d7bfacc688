"""Heat maps: where tokens lie, and 8-bit values by hand."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from elude.handlers.answers.heatmap import Grid, grid_of, heat_maps


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


def test_heat_maps_by_hand() -> None:
    activations = np.array([[9, 1, -2, 0.5, 2], [-1, 0, 0, 3, -3]], np.float32).T
    sizes = {"rows": 2, "columns": 2}
    expected = [
        sizes | {"maximum": 2.0, "values": [[128, 0], [64, 255]]},
        sizes | {"maximum": 3.0, "values": [[0, 0], [255, 0]]},
    ]
    assert heat_maps(activations, Grid(1, 2, 2), "grid") == expected


def test_the_picture_holds_the_same_values() -> None:
    activations = np.random.default_rng(0).normal(size=(13, 3)).astype(np.float32)
    grids, pictures = (heat_maps(activations, Grid(1, 3, 4), form) for form in ("grid", "png"))
    for grid, picture in zip(grids, pictures, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(picture.pop("png")))) as image:
            assert np.asarray(image).tolist() == grid.pop("values")
        assert picture == grid


def test_nothing_above_zero_is_black() -> None:
    (found,) = heat_maps(np.array([[-1], [0]], np.float32), Grid(0, 1, 2), "grid")
    assert (found["values"], found["maximum"]) == ([[0, 0]], 0)
    assert heat_maps(np.zeros((2, 0), np.float32), Grid(0, 1, 2), "grid") == []
