"""The order in which points join when a set grows from one point by the nearest other, and how far each step is.

Distances are those of mutual reachability (Campello, Moulavi and Sander, 2013): the distance of two
points, but at least each one's core distance, that to its ``min_samples``-th neighbour (itself
included). This is Prim's algorithm without its edges. The steps alone hold the whole hierarchy of
single linkage: the level at which two points meet is the largest step between them in the order.

With ``n`` points of ``d`` dimensions this takes 1.5 n² d multiply-adds in matrix products and some
n² comparisons, and no more memory than a few copies of the points: distances are computed twice, in
blocks of rows for the core distances and then, row by row among the points that have not joined,
rather than kept. Keeping all n² of them was measured to be slower as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

_BLOCK = 512


@dataclass(frozen=True)
class Reach:
    """The order of joining.

    Attributes:
        order: int64 (points,), starting with point 0.
        steps: float64 (points - 1,), mutual reachability distance from what came before to ``order[i + 1]``.
    """

    order: NDArray[np.int64]
    steps: NDArray[np.float64]


def reach(points: Array, min_samples: int) -> Reach:
    """Join all points.

    Args:
        points: float32 or float64 (points, dimensions), at least ``min_samples`` of them; computed in their precision.
        min_samples: neighbours that make the core distance, the point itself counted, at least 1.
    """
    points = np.ascontiguousarray(points)
    length = np.einsum("ij,ij->i", points, points)
    order, steps = _join(points, length, _core(points, length, min_samples))
    return Reach(order, np.sqrt(steps.astype(np.float64)))


def _core(points: Array, length: Array, min_samples: int) -> Array:
    """Squared core distances (points,)."""
    core = np.empty_like(length)
    scaled = np.ascontiguousarray(-2 * points.T)
    for start in range(0, len(points), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(points)))
        block = points[rows] @ scaled
        block += length
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = -length[
            rows
        ]  # a point is at 0 from itself, without rounding
        block.partition(min_samples - 1, axis=1)
        core[rows] = block[:, min_samples - 1] + length[rows]
    return np.maximum(core, 0)


def _join(points: Array, length: Array, core: Array) -> tuple[NDArray[np.int64], Array]:
    """The order, and the squared steps."""
    count = len(core)
    order, steps = np.zeros(count, np.int64), np.empty(count - 1, core.dtype)
    left = np.arange(count)  # points that had not joined when the arrays below were last cut down
    scaled, lengths, floor, nearest = -2 * points, length, core.copy(), np.full(count, np.inf, core.dtype)
    place = current = 0
    for step in range(count - 1):
        floor[place] = nearest[place] = np.inf  # never the nearest again
        if step % max(count // 32, 1) == 0:
            kept = np.flatnonzero(np.isfinite(floor))
            left, scaled, lengths, floor, nearest = left[kept], scaled[kept], lengths[kept], floor[kept], nearest[kept]
        row = scaled @ points[current]
        row += lengths
        row += length[current]
        np.maximum(row, floor, out=row)
        np.maximum(row, core[current], out=row)
        np.minimum(nearest, row, out=nearest)
        place = int(nearest.argmin())
        current = int(left[place])
        order[step + 1], steps[step] = current, nearest[place]
    return order, steps
