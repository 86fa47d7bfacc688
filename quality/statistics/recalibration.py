"""What a model's probabilities should have been: a best guess, from the labels of few images.

First one temperature for all (Guo et al., ICML 2017), by maximum likelihood. Then each bin of each class by its own shift of the logits,
but only as far as the bins' gaps scatter more than noise alone lets them: empirical Bayes, so that what noise may explain is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quality.statistics.statistics import Floats, Z, softmax

_LEAST_PROBABILITY = 1e-12
_SHARPNESS = (0.02, 50.0)
_STEPS = 30
_CLOSE = 1e-4


def recalibrated(probabilities: Floats, labels: NDArray[np.int64], flat: NDArray[np.int64]) -> Floats:
    """(N, C) probabilities, recalibrated by ``labels`` (N,); ``flat`` (N, C) is the number of each one's bin, over all classes."""
    return _by_bins(_by_temperature(probabilities, labels), labels, flat)


def _by_temperature(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """Probabilities to the power of the likeliest sharpness: Newton's method on a concave likelihood of one parameter."""
    logs = np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
    seen = float(logs[np.arange(len(labels)), labels].sum())
    sharpness = 1.0
    for _ in range(_STEPS):
        sharpened = softmax(logs * sharpness)
        means = np.einsum("nc,nc->n", sharpened, logs)
        variance = float(np.einsum("nc,nc,nc->", sharpened, logs, logs) - means @ means)
        if variance <= _LEAST_PROBABILITY:
            break
        # no step more than doubles or halves it: far from the likeliest, Newton's would overshoot
        moved = float(np.clip(sharpness + (seen - means.sum()) / variance, sharpness / 2, sharpness * 2))
        moved = float(np.clip(moved, *_SHARPNESS))
        if abs(moved - sharpness) <= _CLOSE * sharpness:
            break
        sharpness = moved
    return sharpened


def _by_bins(probabilities: Floats, labels: NDArray[np.int64], flat: NDArray[np.int64]) -> Floats:
    """With the logits of each bin shifted by its posterior mean.

    A bin's excess of labels g has variance v = Σ p(1 − p) if calibrated, and estimates its shift by g/v with variance 1/v. The shifts are
    taken to be normal around 0; Σ(g² − v)/Σv² is the moment estimate of their variance. From it two standard errors of what noise alone
    gives are taken: shifts that only look like some would tie the simulated models to the noise of these images.
    """
    count = int(flat.max()) + 1
    variance = np.bincount(flat.ravel(), (probabilities * (1 - probabilities)).ravel(), count)
    excess = np.bincount(flat[np.arange(len(labels)), labels], minlength=count) - np.bincount(flat.ravel(), probabilities.ravel(), count)
    squares = float(variance @ variance)
    prior = (float(excess @ excess) - variance.sum() - Z * np.sqrt(2 * squares)) / max(squares, _LEAST_PROBABILITY)
    if prior <= 0:
        return probabilities
    shifts = prior * excess / (prior * variance + 1)
    return softmax(np.log(np.maximum(probabilities, _LEAST_PROBABILITY)) + shifts[flat])
