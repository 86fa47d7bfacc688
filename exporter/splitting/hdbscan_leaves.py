"""The leaf clusters of HDBSCAN, from the order in which points join.

Cut the order at its largest step, each side again at its largest, and so on: that is the tree of
    single linkage, upside down. Read from
the top (McInnes, Healy and Astels, 2017), a cut with ``min_cluster_size`` points on both sides
splits a cluster in two; a smaller side only falls out of it, at the density 1 / step, and when both
sides are smaller the cluster ends. Leaves are the clusters that never split; a set that never
splits at all has none. A point's membership probability is the density at which it fell out, over
the largest such density of its leaf.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elude.exporter.splitting.hdbscan_reach import Reach

NOISE = -1


def leaf_clusters(joined: Reach, min_cluster_size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and membership probabilities of the points.

    Args:
        joined: order and steps of n points.
        min_cluster_size: fewest points of a cluster, at least 2.

    Returns:
        int64 (n,), leaves counted from 0 in the order of joining, -1 for noise; float64 (n,), 0 for noise.
    """
    count = len(joined.order)
    labels, probabilities = np.full(count, NOISE, np.int64), np.zeros(count)
    for label, (start, stop, fallen) in enumerate(_leaves(joined.steps, count, min_cluster_size)):
        with np.errstate(divide="ignore"):
            density = 1 / fallen
        top = density.max()
        members = joined.order[start:stop]
        labels[members] = label
        probabilities[members] = np.divide(
            density, top, out=np.ones_like(density), where=np.isfinite(density) & (top > 0)
        )
    return labels, probabilities


def _leaves(steps: NDArray[np.float64], count: int, smallest: int) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Leaves as (start, stop, step at which each point between fell out), in ascending order."""
    if count < 2:
        return []
    left, right, root = _tree(steps)
    found = []
    open_clusters = [(root, 0, count, True)]
    while open_clusters:
        cut, start, stop, is_root = open_clusters.pop()
        fallen = np.empty(stop - start)
        first, last = start, stop  # what is left of the cluster
        while True:
            before, after = cut + 1 - first, last - cut - 1
            if before >= smallest and after >= smallest:
                open_clusters += [(right[cut], cut + 1, last, False), (left[cut], first, cut + 1, False)]
                break
            if before < smallest and after < smallest:
                fallen[first - start : last - start] = steps[cut]
                if not is_root:
                    found.append((start, stop, fallen))
                break
            if before < smallest:
                fallen[first - start : cut + 1 - start] = steps[cut]
                first, cut = cut + 1, right[cut]
            else:
                fallen[cut + 1 - start : last - start] = steps[cut]
                last, cut = cut + 1, left[cut]
    return found


def _tree(steps: NDArray[np.float64]) -> tuple[list[int], list[int], int]:
    """Below each cut the largest cut to its left and right (-1: none), and the largest of all.

    Equal steps keep the order of a sort.
    """
    rank = np.empty(len(steps), np.int64)
    rank[np.argsort(steps)] = np.arange(len(steps))
    left, right = [-1] * len(steps), [-1] * len(steps)
    falling: list[int] = []
    for cut, height in enumerate(rank.tolist()):
        below = -1
        while falling and rank[falling[-1]] < height:
            below = falling.pop()
        left[cut] = below
        if falling:
            right[falling[-1]] = cut
        falling.append(cut)
    return left, right, falling[0]
