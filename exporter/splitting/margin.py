"""The margin rule: which clusters share the weight of one input.

With r_c the clusters' representatives and a margin rho in (0, 1], a proper, non-empty set S of
clusters wins input j when

    rho * min over S of |r_c[j]|  >  max outside S of |r_c[j]|                     (ELUDe, arXiv 2605.31304, section 3).

As rho <= 1, every member of a winning set is larger than every non-member, so only prefixes of the
clusters sorted by falling |r_c[j]| can win: K-1 comparisons of neighbours instead of 2^K - 2 sets.
Equal neighbours never win, so ties need no rule.

``literal`` is the paper's: exactly one winning set shares the input, otherwise all clusters do.
``smallest`` takes the smallest winning set when there are several. Where no set wins (also where
all representatives are 0) all clusters share under both.

Two rules are not the paper's and know no margin. ``signed`` gives the input to the cluster with the
largest r_c[j], sign and all (of equal ones the first). The choice maximises the sum over c of w^c .
(own mean - mean of the others), as that sum is linear in the shares: an input that holds the unit
back goes to the cluster that it holds back least.

``near-ties``, the default, lets clusters that are about as good share the input:

    S_j = {c : max r[j] - r_c[j] <= (max r[j] - min r[j]) / 10},    max and min over the clusters.

It is the largest set each member of which, given the input alone, would reach nine tenths of what the choice
can gain in that sum, from its worst to its best; with equal shares the set does too. Of two clusters the larger
takes all, unless they are equal. S_j does not change when r[j] is multiplied by a positive number or when a number
is added to it: what the clusters have in common does not count. docs/method.md has what it gains.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from elude.exporter.splitting.layer_split import full_masks
from elude.handlers.errors import UsageError

MarginRule = Literal["literal", "smallest", "signed", "near-ties"]
MARGIN_RULES: tuple[str, ...] = get_args(MarginRule)
WITHOUT_MARGIN = ("near-ties", "signed")  # rules that no rho changes
NEAR = 0.1  # of the range of an input's representatives, within which clusters tie
MARGINS: NDArray[np.float64] = np.arange(1, 21) / 20  # 0.05, 0.10, … 1.00


def winning_masks(representatives: NDArray[np.float32], margins: NDArray[np.float64], rule: str) -> NDArray[np.uint64]:
    """Which clusters share each input, for several margins at once.

    Args:
        representatives: (clusters, inputs), 1 to 64 clusters.
        margins: (margins,), each in (0, 1].
        rule: one of ``MARGIN_RULES``.

    Returns:
        uint64 (margins, inputs): bit c set where cluster c shares the input.

    Raises:
        UsageError: for an unknown rule or a margin outside (0, 1].
    """
    if rule not in MARGIN_RULES:
        raise UsageError(f"There is no margin rule {rule!r}.", f"Choose one of {', '.join(MARGIN_RULES)}.")
    margins = np.asarray(margins, np.float64)
    if not np.all((margins > 0) & (margins <= 1)):
        raise UsageError(f"A margin lies outside (0, 1]: {margins.tolist()}.", "Give margins above 0 and at most 1.")
    clusters, inputs = representatives.shape
    full = full_masks(np.array([clusters]))[0]
    if clusters == 1:
        return np.full((len(margins), inputs), full, np.uint64)
    if rule in WITHOUT_MARGIN:
        shared = _near_ties(representatives) if rule == "near-ties" else _largest(representatives, full)
        return np.repeat(shared[None], len(margins), axis=0)
    size = np.abs(representatives.astype(np.float64))
    order = np.argsort(-size, axis=0, kind="stable")
    falling = np.take_along_axis(size, order, axis=0)
    prefixes = np.bitwise_or.accumulate(np.uint64(1) << order.astype(np.uint64), axis=0)[:-1]
    wins = margins[:, None, None] * falling[:-1] > falling[1:]  # (margins, clusters - 1, inputs)
    smallest = np.take_along_axis(np.broadcast_to(prefixes, wins.shape), wins.argmax(axis=1)[:, None], axis=1)[:, 0]
    count = wins.sum(axis=1)
    return np.where(count == 1 if rule == "literal" else count > 0, smallest, full)


def _largest(representatives: NDArray[np.float32], full: np.uint64) -> NDArray[np.uint64]:
    """uint64 (inputs,): the first cluster with the largest value, all where all are 0."""
    winner = np.uint64(1) << representatives.argmax(axis=0).astype(np.uint64)
    return np.where(representatives.any(axis=0), winner, full)


def _near_ties(representatives: NDArray[np.float32]) -> NDArray[np.uint64]:
    """uint64 (inputs,): the clusters within ``NEAR`` of the range below the largest value."""
    values = representatives.astype(np.float64)
    most = values.max(axis=0)
    near = most - values <= NEAR * (most - values.min(axis=0))
    bits = np.uint64(1) << np.arange(len(values), dtype=np.uint64)
    masks: NDArray[np.uint64] = np.bitwise_or.reduce(np.where(near, bits[:, None], np.uint64(0)), axis=0)
    return masks
