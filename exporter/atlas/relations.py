"""How sub-units relate: which fire together, and which take the same inputs.

Together: Pearson's correlation of the largest activation (above 0) in each image. Inputs: Jaccard
index of the inputs that are a sub-unit's own, those that not all parts of its unit share. Which say
the same is what ``elude.exporter.naming.concepts`` groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from elude.exporter.naming.neighbours import profiles
from elude.exporter.splitting.layer_split import LayerSplit

MAP = 48  # sub-units of the heat map
PAIRS = 30
PARTNERS = 3
_BLOCK = 512

Pair = tuple[int, int, float]


@dataclass(frozen=True)
class Together:
    """What fires together.

    Attributes:
        pairs: the most correlated sub-units of unlike units.
        partners: for each sub-unit the most correlated ones of other units, strongest first.
        mapped: the most active sub-units, ordered so that alike ones lie side by side.
        matrix: float32 (mapped, mapped), their correlations.
        images: number of images.
    """

    pairs: tuple[Pair, ...]
    partners: tuple[tuple[tuple[int, float], ...], ...]
    mapped: tuple[int, ...]
    matrix: NDArray[np.float32]
    images: int


def together(peak: NDArray[np.float32], parent: NDArray[np.int64], active: NDArray[np.float64]) -> Together:
    """Correlate all sub-units.

    Args:
        peak: float32 (images, sub-units).
        parent: int64 (sub-units,), a number of each one's unit.
        active: float64 (sub-units,), how often each is above 0; chooses what the map shows.
    """
    scaled = profiles(peak)
    similar = np.clip(scaled @ scaled.T, -1, 1)
    np.fill_diagonal(similar, 1)
    live = np.flatnonzero(scaled.any(axis=1))
    chosen = np.sort(live[np.argsort(-active[live], kind="stable")[:MAP]])
    order = chosen[_side_by_side(similar[np.ix_(chosen, chosen)])]
    across = np.where(parent[:, None] == parent[None, :], -1, similar).astype(np.float32)
    partners = _partners(across, set(live.tolist()))
    return Together(_pairs(across), partners, tuple(order.tolist()), similar[np.ix_(order, order)], len(peak))


def shared_inputs(splits: Sequence[LayerSplit]) -> tuple[Pair, ...]:
    """The sub-units of unlike units of one layer whose own inputs overlap most, with the Jaccard index."""
    found: list[Pair] = []
    first = 0
    for split in splits:
        sharing = np.add.reduceat(split.members, split.first, axis=0, dtype=np.int64)[split.parent]
        own = (split.members & (sharing < split.parts[split.parent][:, None])).astype(np.float32)
        size = own.sum(axis=1)
        jaccard = np.zeros((len(own), len(own)), np.float32)
        for start in range(0, len(own), _BLOCK):
            both = own[start : start + _BLOCK] @ own.T
            either = size[start : start + _BLOCK, None] + size - both
            np.divide(both, either, out=jaccard[start : start + _BLOCK], where=either > 0)
        jaccard[split.parent[:, None] == split.parent] = -1
        found += [(first + a, first + b, value) for a, b, value in _pairs(jaccard)]
        first += split.sub_units
    return tuple(sorted(found, key=lambda pair: (-pair[2], pair[:2]))[:PAIRS])


def _pairs(values: NDArray[np.float32]) -> tuple[Pair, ...]:
    """The largest positive entries above the diagonal of a symmetric matrix."""
    upper = np.triu(values, 1).ravel()
    count = min(PAIRS, len(upper))
    best = np.argpartition(-upper, count - 1)[:count] if count else np.array([], np.int64)
    best = best[np.lexsort((best, -upper[best]))]
    rows, columns = np.divmod(best, len(values)) if len(values) else (best, best)
    places = zip(rows.tolist(), columns.tolist(), upper[best].tolist(), strict=True)
    return tuple((row, column, value) for row, column, value in places if value > 0)


def _partners(across: NDArray[np.float32], live: set[int]) -> tuple[tuple[tuple[int, float], ...], ...]:
    found = []
    for index, row in enumerate(across):
        best = (
            np.argpartition(-row, min(PARTNERS, len(row) - 1))[:PARTNERS] if index in live else np.array([], np.int64)
        )
        best = best[np.lexsort((best, -row[best]))]
        found.append(tuple((int(other), float(row[other])) for other in best if row[other] > 0))
    return tuple(found)


def _side_by_side(similar: NDArray[np.float32]) -> NDArray[np.int64]:
    if len(similar) < 3:
        return np.arange(len(similar))
    order: NDArray[np.int64] = leaves_list(linkage(squareform(1 - similar, checks=False), "average")).astype(np.int64)
    return order
