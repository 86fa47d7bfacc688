"""Object focus: 1 - (A_mixed-same - A_mixed-rand), how little a background of another class hurts more than one of
the same class.

(Xiao et al. 2021, "Noise or Signal".) Not divided by clean accuracy: the published values are not,
though the reference code does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import RESAMPLES, paired_difference_interval


def object_focus(same: NDArray[np.bool_], rand: NDArray[np.bool_], *, resamples: int = RESAMPLES) -> DimensionResult:
    """Object focus of bool (N,) right answers on backgrounds of the same and of another class, of the same objects
    in the same order.

    Args:
        same: answers on backgrounds of the same class.
        rand: answers on backgrounds of another class.
        resamples: 0 for no interval, as in the other dimensions; this one needs no resampling.

    Returns:
        value in [0, 2], above 1 if foreign backgrounds help; Tango's interval for paired images; factors
        ``mixed_same`` and ``mixed_rand``.

    Raises:
        EvaluationError: for no images or other numbers of them.
    """
    if len(same) == 0 or same.shape != rand.shape:
        raise EvaluationError(
            f"Object focus compares the same objects, not {len(same)} with {len(rand)}.",
            "Give both backgrounds of each.",
        )
    low, high = paired_difference_interval(same, rand)
    return DimensionResult(
        float(1 - (same.mean() - rand.mean())),
        HIGHER_IS_BETTER["object_focus"],
        len(same),
        (1 - high, 1 - low) if resamples else None,
        {"mixed_same": float(same.mean()), "mixed_rand": float(rand.mean())},
    )
