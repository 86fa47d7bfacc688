"""Which clusters of which units become sub-units, when a layer may have only a given number.

Each unit keeps its two best clusters; what is left of the layer's budget goes to the best of all
others. A unit with fewer than two clusters stays whole and takes one place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from elude.exporter.splitting.layer_split import MAX_PARTS


def keep_best(scores: Sequence[NDArray[np.float64]], budget: int) -> list[NDArray[np.int64]]:
    """Clusters that each unit keeps, ascending; none for a unit that stays whole.

    Args:
        scores: of each unit, (clusters,): higher is better; of equal ones the earlier is kept.
        budget: sub-units of the layer, those of whole units included; two of each split unit are kept in any case.
    """
    order = [np.argsort(-unit, kind="stable") if len(unit) > 1 else np.empty(0, np.int64) for unit in scores]
    taken = np.array([min(len(ranked), 2) for ranked in order], np.int64)
    left = budget - int(np.maximum(taken, 1).sum())
    others = [
        (-float(scores[unit][cluster]), unit)
        for unit, ranked in enumerate(order)
        for cluster in ranked[2:MAX_PARTS].tolist()
    ]
    for _, unit in sorted(others)[: max(left, 0)]:
        taken[unit] += 1  # a unit's clusters come in the order of their scores
    return [np.sort(ranked[:count]) for ranked, count in zip(order, taken.tolist(), strict=True)]
