"""An edit of one sub-unit, and the packing of unlike edits of a batch into the graph's four inputs (docs/graph.md)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "steer_sub_unit": np.int64,
    "steer_gain": np.float32,
    "steer_offset": np.float32,
    "steer_patches": np.int64,
}  # as in Edit
PADDING = -1  # a sub-unit index that edits nothing


class Edit(NamedTuple):
    """Activation ``a`` of sub-unit ``index`` becomes ``gain * a + offset``.

    ``patches`` = 0 edits all tokens, ν > 0 only the ν tokens where ``a`` is largest. A tuple, as it
    is made many times in a request.
    """

    index: int  # type: ignore[assignment]  # hides the method of tuples, which nobody asks an edit for
    gain: float = 1.0
    offset: float = 0.0
    patches: int = 0

    @classmethod
    def scale(cls, index: int, gain: float, patches: int = 0) -> Edit:
        return cls(index, gain, 0.0, patches)

    @classmethod
    def ablate(cls, index: int, patches: int = 0) -> Edit:
        return cls(index, 0.0, 0.0, patches)

    @classmethod
    def set(cls, index: int, value: float, patches: int = 0) -> Edit:
        return cls(index, 0.0, value, patches)

    @classmethod
    def add(cls, index: int, value: float, patches: int = 0) -> Edit:
        return cls(index, 1.0, value, patches)


def pack(rows: Sequence[Sequence[Edit]]) -> dict[str, NDArray[np.generic]]:
    """Pack each row's edits into ``steer_*`` arrays of shape (batch, edits), short rows filled with ``PADDING``.

    Returns an empty dict when no row has an edit: the graph's own empty defaults then apply.
    """
    width = max((len(row) for row in rows), default=0)
    if width == 0:
        return {}
    padding = Edit(PADDING)
    padded = chain.from_iterable([*row, *[padding] * (width - len(row))] for row in rows)
    # float64 holds every index, number of patches and float32 exactly
    values = np.fromiter(chain.from_iterable(padded), np.float64, len(rows) * width * len(_TYPES)).reshape(
        len(rows), width, len(_TYPES)
    )
    return {name: values[..., i].astype(kind) for i, (name, kind) in enumerate(_TYPES.items())}
