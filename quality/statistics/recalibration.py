"""How a model's probabilities are off: a best guess, from the labels of few images.

First by one temperature for all (Guo et al., ICML 2017), found by maximum likelihood. Then each bin for itself, but only as far as the bins'
gaps scatter more than noise alone lets them: empirical Bayes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quality.statistics.statistics import Floats, Z

_LEAST_PROBABILITY = 1e-12
_SHARPNESS = (0.02, 50.0)
_STEPS = 30
_CLOSE = 1e-4


def by_temperature(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """Probabilities to the power of the likeliest sharpness: Newton's method on a concave likelihood of one parameter."""
    logs = np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
    seen = float(logs[np.arange(len(labels)), labels].sum())
    sharpness = 1.0
    for _ in range(_STEPS):
        sharpened = _softmax(logs * sharpness)
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


def standing_out(gaps: Floats, variances: Floats) -> Floats:
    """What of the gaps of bins, as sums, is no noise: their posterior means. Zeros where they scatter no more than noise does.

    If the logits of a bin are off by δ, its gap is vδ with noise of variance v. The δ are taken to be normal around 0; Σ(g² − v)/Σv² is the
    moment estimate of their variance. From it two standard errors of what noise alone gives are taken: gaps that only look like some
    would tie the simulated models to the noise of these images.
    """
    squares = float(variances @ variances)
    excess = float(gaps @ gaps - variances.sum()) - Z * np.sqrt(2 * squares)
    if excess <= 0:
        return np.zeros_like(gaps)
    return gaps * (excess * variances / (excess * variances + squares))


def _softmax(logits: Floats) -> Floats:
    """Over the classes, in place: there may be many."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
