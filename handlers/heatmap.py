"""Where on the image a sub-unit fires: its activations over the tokens as a small 8-bit map, strongest place 255."""

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

    The largest grid of square patches that holds no more than ``tokens``; what is left over is the prefix. A layer whose tokens
    fit no grid is one row.
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


def heat_map(activation: NDArray[np.float32], grid: Grid, form: str) -> dict[str, Any]:
    """The map as JSON.

    Args:
        activation: (tokens,); only what is above 0 is shown.
        grid: where the tokens lie.
        form: ``grid`` for nested lists, ``png`` for a base64 greyscale PNG of one pixel a token.

    Returns:
        ``rows``, ``columns``, ``maximum`` (the activation that 255 stands for, 0 if none is above 0) and ``values`` or ``png``.
    """
    places = np.maximum(activation[grid.prefix :], 0).reshape(grid.rows, grid.columns)
    maximum = float(places.max())
    values = np.rint(places * (255 / maximum)).astype(np.uint8) if maximum > 0 else np.zeros(places.shape, np.uint8)
    answer: dict[str, Any] = {"rows": grid.rows, "columns": grid.columns, "maximum": maximum}
    if form == "grid":
        return answer | {"values": values.tolist()}
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return answer | {"png": base64.b64encode(buffer.getvalue()).decode()}
