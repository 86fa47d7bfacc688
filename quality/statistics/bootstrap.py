"""Standard interval by the bootstrap: the estimate plus and minus 1.96 standard deviations of resampled estimates, cut
to the range of the measure. (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.)

It always holds its estimate, and is about the measurement: how far another sample of as many images would lie from
this one. A statistic that noise biases, such as a sum of absolute gaps, is as biased there.
"""

from __future__ import annotations

import numpy as np

from elude.quality.statistics.intervals import Floats, Z

_WORK = 10**9  # values that all resamples together may touch; 100 resamples are taken at least
_FEWEST = 100


def standard_interval(estimate: float, resampled: Floats, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """Interval of ``estimate`` from float64 (B,) resampled estimates."""
    half = Z * float(resampled.std(ddof=1))
    return max(low, estimate - half), min(high, estimate + half)


def affordable(resamples: int, size: int) -> int:
    """At most ``resamples``: fewer where each touches very many values."""
    return min(resamples, max(_FEWEST, _WORK // size))


def counts(rng: np.random.Generator, images: int) -> Floats:
    """How often each of the images occurs in one resample, float64 (N,)."""
    return np.bincount(rng.integers(images, size=images), minlength=images).astype(np.float64)
