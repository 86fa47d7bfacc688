"""Probabilities from outputs, means, and seeded confidence intervals: the small statistics every dimension shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from handlers.errors import EvaluationError

LEVEL = 0.95
RESAMPLES = 1000
Z = float(ndtri((1 + LEVEL) / 2))  # 1.96
_CHUNK = 8_000_000  # numbers of a resampling matrix held at once: 64 MB
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
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def probabilities_of(outputs: NDArray[Any]) -> Floats:
    """float64 (N, C) probabilities of a classifier's ``outputs``, whether they are logits or probabilities.

    Raises:
        EvaluationError: if ``outputs`` are not (N, C) with C >= 2, or hold NaN or infinity.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise EvaluationError(
            f"A classifier's outputs have shape (images, classes >= 2), not {outputs.shape}.", "Evaluate a model with a head."
        )
    if not np.all(np.isfinite(outputs)):
        rows = int((~np.isfinite(outputs).all(axis=1)).sum())
        raise EvaluationError(f"The outputs of {rows} of {len(outputs)} images hold NaN or infinity.", "Check the model on these images.")
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
        raise EvaluationError(f"Labels are {images} integers, not {labels.dtype} of shape {labels.shape}.", "Give one label an image.")
    if labels.min() < 0 or labels.max() >= classes:
        raise EvaluationError(
            f"Labels {labels.min()}…{labels.max()} do not fit a model with {classes} classes.", "Check the suite's labels."
        )
    return labels.astype(np.int64)


def geometric_mean(values: Sequence[float] | Floats) -> float:
    """Geometric mean of non-negative ``values``; 0 if one of them is 0.

    Raises:
        EvaluationError: for no values, a negative one or NaN.
    """
    array = np.asarray(values, np.float64)
    if array.size == 0 or not np.all(array >= 0):
        raise EvaluationError(f"A geometric mean needs non-negative numbers, not {array.tolist()}.", "Look at the factors.")
    return float(_geometric(array))


def _geometric(values: Floats) -> Floats:
    """Geometric mean over the last axis."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(np.log(values).mean(axis=-1)))


def geometric_means(values: Floats) -> Floats:
    """float64 (...,) geometric means of (..., factors), negative factors taken as 0: for resampled factors."""
    return _geometric(np.maximum(values, 0))


def resampled_means(values: NDArray[Any], resamples: int, seed: int) -> Floats:
    """float64 (resamples, K): means of ``values`` (N, K) over bootstrap resamples of the rows.

    All columns see the same resample, so that ratios and differences of them keep their correlation.
    """
    images = len(values)
    values = values.astype(np.float64)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // images)
    means = []
    for start in range(0, resamples, rows):
        counts = rng.multinomial(images, np.full(images, 1 / images), size=min(rows, resamples - start))
        means.append(counts @ values / images)
    return np.concatenate(means) if means else np.empty((0, values.shape[1]))


def percentile_interval(samples: Floats, level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the resampled statistic ``samples`` (B,), None for no samples."""
    if samples.size == 0:
        return None
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion; unlike the bootstrap not empty at 0 and 1. (E. B. Wilson, JASA 1927.)"""
    z = float(ndtri((1 + level) / 2))
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * float(np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference_interval(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """Interval of the difference of two proportions of the same images; not empty when no image differs.

    Wilson's limits of both, squared and added with their correlation. (R. G. Newcombe, Statistics in Medicine 1998, method 10.)
    """
    images = len(first)
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second = int((~first & second).sum())
    neither = images - both - only_first - only_second
    determinant = float(both * neither - only_first * only_second)
    if determinant > 0:
        determinant = max(determinant - images / 2, 0)
    product = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    correlation = determinant / float(np.sqrt(product)) if product else 0.0
    rates = (both + only_first) / images, (both + only_second) / images
    (low1, high1), (low2, high2) = wilson_interval(both + only_first, images), wilson_interval(both + only_second, images)
    down, up = (rates[0] - low1, high2 - rates[1]), (high1 - rates[0], rates[1] - low2)
    below, above = (float(np.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))) for x, y in (down, up))
    return max(-1.0, rates[0] - rates[1] - below), min(1.0, rates[0] - rates[1] + above)
