"""Where a token lies on a thumbnail, and the look that the atlas shares with the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elude.handlers.answers.heatmap import grid_of
from elude.handlers.bundle.catalogue import Top


@dataclass(frozen=True)
class Layout:
    """Height and width of the model's input in pixels, and tokens of each layer, as far as known."""

    height: int
    width: int
    tokens: Mapping[str, int]


def marker(top: Top, layer: str, layout: Layout | None) -> tuple[float, float, float, float] | None:
    """The token's box as (left, top, width, height) in percent, None where it has no place."""
    if layout is None or layer not in layout.tokens:
        return None
    grid = grid_of(layout.tokens[layer], layout.height, layout.width)
    place = top.token - grid.prefix
    if place < 0 or place >= grid.rows * grid.columns or grid.rows * grid.columns == 1:
        return None
    row, column = divmod(place, grid.columns)
    return 100 * column / grid.columns, 100 * row / grid.rows, 100 / grid.columns, 100 / grid.rows


def shared_style() -> str:
    """The style sheet of everything that this project shows in a browser."""
    return (Path(__file__).parent.parent / "style.css").read_text(encoding="utf-8")
