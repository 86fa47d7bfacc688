"""Probabilities from outputs, means, and seeded confidence intervals: the small statistics every dimension shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from elude.handlers.errors import EvaluationError

LEVEL = 0.95
RESAMPLES = 1000
Z = float(ndtri((1 + LEVEL) / 2))  # 1.96
_ROW_SUM_TOLERANCE = 1e-3  # float16 probabilities of 1000 classes still sum to 1 this closely

Floats = NDArray[np.float64]


def are_probabilities(outputs: NDArray[Any]) -> bool:
    """Whether ``outputs`` (N, C) are probabilities already: no entry outside [0, 1] and every row sums to 1.

    A second softmax would flatten them to nearly constant confidences, which look well calibrated and balanced.
    """
    if outputs.shape[0] == 0 or outputs.shape[1] < 2:
        return False
    low, high = float(outputs.min()), float(outputs.max())
    if low < 0 or high > 1 + _ROW_SUM_TOLERANCE:
        return False
    sums = outputs.sum(axis=1, dtype=np.float64)
    return bool(np.all(np.abs(sums - 1) < _ROW_SUM_TOLERANCE))


def softmax(logits: NDArray[Any]) -> Floats:
    """float64 (N, C) softmax over the classes."""
    values: Floats = logits.astype(np.float64)  # a copy, changed in place: there may be many classes
    values -= logits.max(axis=1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=1, keepdims=True)
    return values


def probabilities_of(outputs: NDArray[Any]) -> Floats:
    """float64 (N, C) probabilities of a classifier's ``outputs``, whether they are logits or probabilities.

    Raises:
        EvaluationError: if ``outputs`` are not (N, C) with C >= 2, or hold NaN or infinity.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise EvaluationError(
            f"A classifier's outputs have shape (images, classes >= 2), not {outputs.shape}.",
            "Evaluate a model with a head.",
        )
    if not np.all(np.isfinite(outputs)):
        rows = int((~np.isfinite(outputs).all(axis=1)).sum())
        raise EvaluationError(
            f"The outputs of {rows} of {len(outputs)} images hold NaN or infinity.", "Check the model on these images."
        )
    if are_probabilities(outputs):
        outputs64 = outputs.astype(np.float64)
        return np.asarray(outputs64 / outputs64.sum(axis=1, keepdims=True))
    return softmax(outputs)


def check_labels(labels: NDArray[Any], images: int, classes: int) -> NDArray[np.int64]:
    """int64 (N,) labels, checked to be N integers in [0, classes).

    Raises:
        EvaluationError: otherwise, or for no images at all.
    """
    if images == 0:
        raise EvaluationError("There are no images to measure.", "Give a suite with labelled images.")
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise EvaluationError(
            f"Labels are {images} integers, not {labels.dtype} of shape {labels.shape}.", "Give one label an image."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise EvaluationError(
            f"Labels {labels.min()}…{labels.max()} do not fit a model with {classes} classes.",
            "Check the suite's labels.",
        )
    return labels.astype(np.int64)


def geometric_mean(values: Sequence[float] | Floats) -> float:
    """Geometric mean of non-negative ``values``; 0 if one of them is 0.

    Raises:
        EvaluationError: for no values, a negative one or NaN.
    """
    array = np.asarray(values, np.float64)
    if array.size == 0 or not np.all(array >= 0):
        raise EvaluationError(
            f"A geometric mean needs non-negative numbers, not {array.tolist()}.", "Look at the factors."
        )
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(array).mean()))


def wilson_interval(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion; unlike the bootstrap not empty at 0 and 1. (E. B. Wilson, JASA 1927.)"""
    z = float(ndtri((1 + level) / 2))
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * float(np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference_interval(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """Interval of the difference of two proportions of the same images; not empty when no image differs.

    The differences that the score test does not reject; its variance is that under the tested
    difference. (T. Tango, Statistics in Medicine 1998.)
    """
    images, only_first, only_second = len(first), int((first & ~second).sum()), int((~first & second).sum())

    def score(difference: float) -> float:
        linear = -only_first - only_second + (2 * images - only_first + only_second) * difference
        root = linear**2 + 8 * images * only_second * difference * (1 - difference)
        share = (math.sqrt(max(root, 0.0)) - linear) / (4 * images)  # of images right in the second only
        variance = images * (2 * share + difference * (1 - difference))
        return (only_first - only_second - images * difference) / math.sqrt(max(variance, 1e-300))

    estimate, end = (only_first - only_second) / images, 1 - 1e-9
    low = brentq(lambda d: score(d) - Z, -end, estimate) if estimate > -end and score(-end) > Z else -1.0
    high = brentq(lambda d: score(d) + Z, estimate, end) if estimate < end and score(end) < -Z else 1.0
    return float(low), float(high)
