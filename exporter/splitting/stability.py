"""How much a split depends on which tokens were kept: two splits of the same layer, matched sub-unit by sub-unit.

Within each unit the sub-units of one split are assigned to those of the other so that the sum of
the cosines of their representatives is largest (the Hungarian method; Kuhn 1955). Units that are
whole in either split have nothing to match and are counted only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from elude.exporter.splitting.layer_split import LayerSplit


@dataclass(frozen=True)
class Stability:
    """Over all pairs of splits.

    Attributes:
        cosine: mean over matched sub-units; NaN when there is none.
        cosine_of_all: the same with 0 for each sub-unit that found no partner, as the other split has fewer.
        units: units split in both splits of a pair, in sum over the pairs.
        same_count: part of these with as many sub-units in both.
        split_once: units split in one of the two only, in sum.
    """

    cosine: float
    cosine_of_all: float
    units: int
    same_count: float
    split_once: int

    def to_json(self) -> dict[str, float | int | None]:
        """With null for what is not defined."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}


def stability(splits: list[LayerSplit]) -> Stability:
    """Compare each pair of at least two splits of one layer."""
    cosines: list[float] = []
    larger = same = units = once = 0
    for one, other in combinations(splits, 2):
        for unit in range(len(one.parts)):
            first, second = _rows(one, unit), _rows(other, unit)
            if len(first) < 2 or len(second) < 2:
                once += (len(first) < 2) != (len(second) < 2)
                continue
            similar = first @ second.T
            cosines += similar[linear_sum_assignment(-similar)].tolist()
            larger += max(similar.shape)
            units += 1
            same += len(first) == len(second)
    if not units:
        return Stability(np.nan, np.nan, 0, np.nan, once)
    return Stability(float(np.mean(cosines)), float(np.sum(cosines) / larger), units, same / units, once)


def _rows(split: LayerSplit, unit: int) -> NDArray[np.float32]:
    first = int(split.first[unit])
    return split.representatives[first : first + int(split.parts[unit])]
