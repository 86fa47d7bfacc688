"""Interval of an accuracy relative to another, or of a (geometric) mean of such ratios.

A ratio of small counts is skewed, and a percentile bootstrap of it too short above. Its logarithm
is nearly normal: the interval is value · exp(±z·s), with s by the delta method. (Katz, Baptista,
Azen & Pike, Biometrics 1978, for one ratio.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elude.quality.statistics.intervals import Floats, Z, wilson_interval


def ratio_interval(value: float, influences: Sequence[Floats]) -> tuple[float, float]:
    """Interval of a positive ``value``.

    Args:
        value: the estimate.
        influences: for each independent sample of images, what each image adds to log ``value``,
            float64 (N,), up to a constant. Images that are seen under several conditions are one
            sample, with the sum of their influences.

    Returns:
        low and high, both positive. Where no image differs from another, Wilson's limit of "none of
        N" is taken: no noise was seen, and what happens to less than about 3 / N of the images
        could not be seen.
    """
    error = float(np.sqrt(sum(influence.var() / len(influence) for influence in influences)))
    if error < 1e-12:
        unseen = max(wilson_interval(0, len(influence))[1] for influence in influences)
        return value * (1 - unseen), value * (1 + unseen)
    return value * float(np.exp(-Z * error)), value * float(np.exp(Z * error))
