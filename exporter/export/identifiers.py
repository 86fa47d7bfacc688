"""Which number a sub-unit gets within its unit.

By themselves clusters have no order. Here they get one: by the share of the unit's weights, largest first. Given an
older split of the same layer, sub-units keep the numbers of those that they continue: within each unit the sum of the
cosines between their representatives is made largest (the Hungarian method; Kuhn 1955), and a pair below
``ALIKE`` does not count as the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.errors import UsageError

ALIKE = 0.5


@dataclass(frozen=True)
class Carried:
    """How the identifiers of an older split were carried over to a layer.

    Attributes:
        kept: sub-units that have the number of the older one they continue.
        moved: older identifier → the new one, where the unit has too few sub-units now for its number.
        new: identifiers of sub-units that continue none.
        gone: older identifiers that none continues.
    """

    kept: int
    moved: dict[str, str]
    new: list[str]
    gone: list[str]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"kept": self.kept, "moved": self.moved, "new": self.new, "gone": self.gone}


def canonical(split: LayerSplit) -> LayerSplit:
    """The same split with its sub-units numbered by their share of the unit, largest first."""
    omega, order = split.omega(), []
    for first, parts in zip(split.first.tolist(), split.parts.tolist(), strict=True):
        rows = range(first, first + parts)
        order.append(sorted(range(parts), key=lambda part: (-omega[rows[part]], _bytes(split, rows[part]))))
    return renumbered(split, order)


def carried_over(split: LayerSplit, older: LayerSplit) -> tuple[LayerSplit, Carried]:
    """The same split with the numbers of an older one of the same layer.

    Raises:
        UsageError: the layers differ in size.
    """
    if split.masks.shape != older.masks.shape:
        raise UsageError(
            f"{split.layer} has {split.masks.shape} units and inputs, the older split {older.masks.shape}.",
            "Carry identifiers over from a bundle of the same architecture.",
        )
    order: list[list[int]] = []
    kept, moved, new, gone = 0, {}, [], []
    for unit in range(len(split.parts)):
        name = f"{split.layer}/u{unit}"
        continued = _matches(split, older, unit)
        parts, before = int(split.parts[unit]), int(older.parts[unit])
        numbers = {old: part for part, old in continued.items() if old < parts}
        free = iter([number for number in range(parts) if number not in numbers])
        numbers |= {next(free): part for part in range(parts) if part not in numbers.values()}
        order.append([numbers[number] for number in range(parts)])
        for number, part in numbers.items():
            old = continued.get(part)
            if old is None:
                new.append(f"{name}.s{number}")
            elif old == number:
                kept += 1
            else:
                moved[f"{name}.s{old}"] = f"{name}.s{number}"
        gone += [f"{name}.s{old}" for old in range(before) if old not in continued.values()]
    return renumbered(split, order), Carried(kept, moved, new, gone)


def renumbered(split: LayerSplit, order: Sequence[Sequence[int]]) -> LayerSplit:
    """The split in which sub-unit ``i`` of unit ``u`` is the former ``order[u][i]``."""
    rows = np.concatenate(
        [first + np.asarray(parts, np.int64) for first, parts in zip(split.first, order, strict=True)]
    )
    masks: NDArray[np.uint64] = np.zeros_like(split.masks)
    for unit, parts in enumerate(order):
        for number, former in enumerate(parts):
            masks[unit] |= ((split.masks[unit] >> np.uint64(former)) & np.uint64(1)) << np.uint64(number)
    return LayerSplit(split.layer, split.parts, masks, split.rho, split.representatives[rows])


def _matches(split: LayerSplit, older: LayerSplit, unit: int) -> dict[int, int]:
    """Sub-unit number → number of the older one that it continues; whole units continue each other."""
    rows, former = (_representatives(each, unit) for each in (split, older))
    if len(rows) == len(former) == 1:
        return {0: 0}
    similar = rows @ former.T
    pairs = zip(*linear_sum_assignment(-similar), strict=True)
    return {int(part): int(old) for part, old in pairs if similar[part, old] >= ALIKE}


def _representatives(split: LayerSplit, unit: int) -> NDArray[np.float32]:
    first = int(split.first[unit])
    return split.representatives[first : first + int(split.parts[unit])]


def _bytes(split: LayerSplit, row: int) -> bytes:
    """A tie between equal shares is broken by the representative."""
    text: bytes = split.representatives[row].tobytes()
    return text
