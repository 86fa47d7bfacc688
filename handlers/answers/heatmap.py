"""Where on the image sub-units fire: their activations over the tokens as small 8-bit maps, strongest place 255."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Grid:
    """How tokens lie on the image: ``prefix`` tokens without a place (class token, registers), then rows × columns."""

    prefix: int
    rows: int
    columns: int


def grid_of(tokens: int, height: int, width: int) -> Grid:
    """The grid of a layer's tokens over an image of ``height`` × ``width`` pixels.

    The largest grid of square patches that holds no more than ``tokens``; what is left over is the
    prefix. A layer whose tokens fit no grid is one row.
    """
    side = math.isqrt(tokens)
    if height == width and side * side == tokens:
        return Grid(0, side, side)
    common = math.gcd(height, width)
    shapes = [(height // p, width // p) for p in range(1, common + 1) if common % p == 0]
    fitting = [(rows, columns) for rows, columns in shapes if rows * columns <= tokens]
    if not fitting:
        return Grid(0, 1, tokens)
    rows, columns = max(fitting)
    prefix = tokens - rows * columns
    return Grid(prefix, rows, columns) if prefix < rows * columns else Grid(0, 1, tokens)


def heat_maps(activations: NDArray[np.float32], grid: Grid, form: str) -> list[dict[str, Any]]:
    """The maps as JSON.

    Args:
        activations: (tokens, maps); only what is above 0 is shown.
        grid: where the tokens lie.
        form: ``grid`` for nested lists, ``png`` for a base64 greyscale PNG of one pixel a token.

    Returns:
        of each map ``rows``, ``columns``, ``maximum`` (the activation that 255 stands for, 0 if
        none is above 0) and ``values`` or ``png``.
    """
    places = np.maximum(activations[grid.prefix :].T, 0)
    maxima = places.max(axis=1, keepdims=True)
    scale = np.divide(255, maxima, out=np.zeros_like(maxima), where=maxima > 0)
    with np.errstate(invalid="ignore"):  # of an activation that is not finite, which no answer can tell
        values = np.rint(places * scale).astype(np.uint8).reshape(-1, grid.rows, grid.columns)
    shown = (
        [("values", map_) for map_ in values.tolist()] if form == "grid" else [("png", _png(map_)) for map_ in values]
    )
    size = {"rows": grid.rows, "columns": grid.columns}
    return [
        {**size, "maximum": maximum, name: map_}
        for maximum, (name, map_) in zip(maxima[:, 0].tolist(), shown, strict=True)
    ]


def _png(values: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
