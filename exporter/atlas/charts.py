"""Small charts as SVG text: histograms and a heat map.

Colours come from the style sheet, so that they follow light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

WIDTH, HEIGHT, BASE = 420, 150, 24


@dataclass(frozen=True)
class Series:
    """One histogram: what it is, its class in the style sheet, its values."""

    title: str
    kind: str
    values: Sequence[float]


def histogram(
    series: Sequence[Series], low: float, high: float, bins: int, *, whole: bool = False, label: str = ""
) -> Markup:
    """Steps of each series over the same bins, as parts of its own number of values.

    Args:
        series: drawn over one another, the last on top.
        low, high: range; values beyond it count in the outermost bins.
        bins: number of bins.
        whole: whether the axis counts whole numbers, each its own bin.
        label: what the axis shows, for those who do not see the picture.
    """
    edges = np.linspace(low, high, bins + 1)
    parts = []
    for one in series:
        counts, _ = np.histogram(np.clip(np.asarray(one.values, float), low, high), edges)
        parts.append(counts / max(counts.sum(), 1))
    top = max((float(part.max()) for part in parts), default=0) or 1
    step, floor = WIDTH / bins, HEIGHT - BASE
    drawn = []
    for one, part in zip(series, parts, strict=True):
        points = [f"M0,{floor}"]
        for place, value in enumerate(part):
            y = floor - value / top * (floor - 6)
            points.append(f"L{place * step:.1f},{y:.1f}L{(place + 1) * step:.1f},{y:.1f}")
        drawn.append(f'<path class="{one.kind}" d="{"".join(points)}L{WIDTH},{floor}Z"/>')
    ticks = [(low + (high - low) * i / 4, i / 4) for i in range(5)]
    if whole:
        every = max(1, round(bins / 8))
        ticks = [(low + 0.5 + i, (i + 0.5) / bins) for i in range(0, bins, every)]
    texts = "".join(
        (
            f'<text x="{min(max(place * WIDTH, 10), WIDTH - 12):.1f}" '
            f'y="{HEIGHT - 6}">{f"{value:.0f}" if whole else f"{value:.2g}"}</text>'
        )
        for value, place in ticks
    )
    line = f'<path class="floor" d="M0,{floor}H{WIDTH}"/>'
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{Markup.escape(label)}">'
    return Markup(head + "".join(drawn) + line + texts + "</svg>")


def heat_map(matrix: NDArray[np.float32], titles: Sequence[str], label: str) -> Markup:
    """A square of cells, the stronger the more colour; each cell says its two sub-units and value when pointed at."""
    side = len(matrix)
    cells = []
    for row in range(side):
        for column in range(side):
            value = float(matrix[row, column])
            if value >= 0.05 and row != column:
                title = f"{titles[row]} · {titles[column]}: {value:.2f}"
                place = f'x="{column}" y="{row}"'
                cells.append(
                    f'<rect {place} fill-opacity="{min(value, 1):.2f}"><title>{Markup.escape(title)}</title></rect>'
                )
    diagonal = "".join(f'<rect class="self" x="{i}" y="{i}"/>' for i in range(side))
    return Markup(
        f'<svg class="heat" viewBox="0 0 {side} {side}" role="img" '
        f'aria-label="{Markup.escape(label)}">{diagonal}{"".join(cells)}</svg>'
    )
