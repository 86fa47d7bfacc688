"""How one layer is split: which sub-units share each weight. All that later steps read, and all that goes to disk.

A layer is z = W q + b with W (units, inputs). Sub-unit c of unit u gets the share m[u, c, j] = [c
in S_uj] / |S_uj| of W[u, j], where S_uj is the set of sub-units that share input j. As sum_c m[u,
c, j] = 1 for every j, sum_c w^c = W_u whatever the sets are: the split can be poor, but never
wrong. S_uj is stored as a bit mask. The bias is shared as omega_c = mean_j m[u, c, j], which sums
to 1 as well. (ELUDe, arXiv 2605.31304, section 3.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PARTS = 64  # bits of a mask


@dataclass(frozen=True)
class LayerSplit:
    """The split of one layer.

    Attributes:
        layer: path of the module, e.g. ``blocks.11.mlp.fc2``.
        parts: int64 (units,), number of sub-units of each unit, 1 for a unit that stays whole.
        masks: uint64 (units, inputs), bit c set where sub-unit c of the unit shares that input's weight. Never 0.
        rho: float32 (units,), the margin found for each unit, NaN for whole units.
        representatives: float32 (sub_units, inputs), unit-length mean contribution of each
            sub-unit's cluster, 0 for whole units.
    """

    layer: str
    parts: NDArray[np.int64]
    masks: NDArray[np.uint64]
    rho: NDArray[np.float32]
    representatives: NDArray[np.float32]

    def __post_init__(self) -> None:
        units, _ = self.masks.shape
        if self.parts.shape != (units,) or self.rho.shape != (units,):
            raise ValueError(
                f"{self.layer}: parts {self.parts.shape} and rho {self.rho.shape} do not fit {units} units"
            )
        if self.parts.min() < 1 or self.parts.max() > MAX_PARTS:
            raise ValueError(
                f"{self.layer}: a unit has between 1 and {MAX_PARTS} sub-units, not "
                f"{self.parts.min()}…{self.parts.max()}"
            )
        full = full_masks(self.parts)[:, None]
        if not np.all((self.masks & ~full) == 0) or not np.all(self.masks):
            raise ValueError(f"{self.layer}: a mask names a sub-unit that its unit does not have, or none")

    @property
    def sub_units(self) -> int:
        """Number of sub-units of the layer."""
        return int(self.parts.sum())

    @property
    def expansion_factor(self) -> float:
        """Sub-units per unit."""
        return self.sub_units / len(self.parts)

    @property
    def first(self) -> NDArray[np.int64]:
        """int64 (units,), row of each unit's first sub-unit."""
        return np.concatenate([[0], np.cumsum(self.parts)[:-1]]).astype(np.int64)

    @property
    def parent(self) -> NDArray[np.int64]:
        """int64 (sub_units,), unit of each sub-unit."""
        return np.repeat(np.arange(len(self.parts)), self.parts)

    @property
    def part(self) -> NDArray[np.int64]:
        """int64 (sub_units,), number of each sub-unit within its unit."""
        return np.arange(self.sub_units) - np.repeat(self.first, self.parts)

    @property
    def members(self) -> NDArray[np.bool_]:
        """bool (sub_units, inputs), whether the sub-unit shares that input's weight."""
        bits = self.masks[self.parent] >> self.part.astype(np.uint64)[:, None]
        return (bits & np.uint64(1)).astype(bool)

    def shares(self) -> NDArray[np.float64]:
        """float64 (sub_units, inputs), the fraction of each weight; sums to 1 over the sub-units of a unit."""
        members = self.members
        sharing = np.add.reduceat(members, self.first, axis=0, dtype=np.int64)[self.parent]
        shares: NDArray[np.float64] = np.divide(members, sharing, dtype=np.float64)
        return shares

    def omega(self) -> NDArray[np.float64]:
        """float64 (sub_units,), the fraction of the bias: the mean share over the inputs."""
        omega: NDArray[np.float64] = self.shares().mean(axis=1)
        return omega


def full_masks(parts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """uint64 (units,): the mask of a weight that all sub-units of the unit share, 2**parts - 1."""
    return np.uint64(0xFFFFFFFFFFFFFFFF) >> (64 - parts).astype(np.uint64)


def whole(layer: str, units: int, inputs: int) -> LayerSplit:
    """The split that splits nothing: one sub-unit a unit, equal to it."""
    return LayerSplit(
        layer,
        np.ones(units, np.int64),
        np.ones((units, inputs), np.uint64),
        np.full(units, np.nan, np.float32),
        np.zeros((units, inputs), np.float32),
    )
