"""Class balance: whether all classes are recognised equally well, and each with steady confidence.

geo(1 - std over classes of the class accuracy, 1 - mean over classes of the std of the true class's
confidence); the first standard deviation with ddof 1, the second with ddof 0. (QUBA, arXiv
2503.17110.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.accuracy import correct
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import RESAMPLES, Floats, check_labels, geometric_mean, probabilities_of
from elude.quality.statistics.inversion import Family, invert

_MEMBERS = 25  # of the family of models that the interval tries
_WIDEST = 4.0  # how far beyond the measured spread the family goes, in units of the noise of one accuracy


def class_balance(
    outputs: NDArray[Any],
    labels: NDArray[Any],
    names: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> DimensionResult:
    """Class balance with ``factors`` accuracy_balance and confidence_balance.

    Args:
        outputs: (N, C) logits or probabilities.
        labels: integer (N,). Classes without images are left out.
        names: C names of the classes for the tables.
        resamples: simulations of each model that the interval tries, 0 for no interval.
        seed: of the simulations.

    Returns:
        value in [0, 1]; tables ``accuracy`` and ``confidence_std`` per class. Few images a class
        make a model look less balanced than it is, so the interval is about the corrected value and
        may not hold ``value`` itself.

    Raises:
        EvaluationError: for outputs or labels that do not fit, or images of one class only.
    """
    probabilities = probabilities_of(outputs)
    labels = check_labels(labels, *probabilities.shape)
    present = np.unique(labels)
    if len(present) < 2:
        raise EvaluationError(
            "Class balance compares classes, and the images are all of one.", "Give images of at least two classes."
        )
    hits = correct(outputs, labels)
    confidence = probabilities[np.arange(len(labels)), labels]
    groups = [np.flatnonzero(labels == c) for c in present]
    means = np.array([hits[rows].mean() for rows in groups])
    stds = np.array([confidence[rows].std() for rows in groups])
    factors = [float(1 - means.std(ddof=1)), float(1 - stds.mean())]
    interval = None
    if resamples:
        interval = _interval([hits[rows] for rows in groups], [confidence[rows] for rows in groups], resamples, seed)
    label = [names[c] if names else str(c) for c in present]
    return DimensionResult(
        geometric_mean(factors),
        HIGHER_IS_BETTER["class_balance"],
        len(labels),
        interval,
        {"accuracy_balance": factors[0], "confidence_balance": factors[1]},
        {
            "accuracy": dict(zip(label, means.tolist(), strict=True)),
            "confidence_std": dict(zip(label, stds.tolist(), strict=True)),
        },
    )


def _interval(
    hits: Sequence[NDArray[np.bool_]], confidences: Sequence[Floats], resamples: int, seed: int
) -> tuple[float, float]:
    """Interval of the class balance, by inversion along the spread of the class accuracies, with the noise of the
    second factor added.

    The family: the measured accuracies moved towards their mean, from all equal to further apart
        than measured. Half an answer added to
    each class keeps one that was always right from having no noise.
    """
    rng = np.random.default_rng(seed)
    counts = np.array([len(values) for values in hits])
    means = np.array([values.mean() for values in hits])
    centre = float((means * counts).sum() / counts.sum())
    smoothed = (means * counts + centre) / (counts + 1)
    measured = float(means.std(ddof=1))
    halves = (means * counts + 0.5) / (counts + 1)  # a class that was always right may not always be
    noise = float(np.sqrt((halves * (1 - halves) / counts).mean()))
    direction = smoothed - centre if measured > noise / 10 else np.resize([1.0, -1.0], len(counts)) * noise
    direction = direction / direction.std(ddof=1)
    accuracies = np.clip(centre + np.linspace(0, measured + _WIDEST * noise, _MEMBERS)[:, None] * direction, 0, 1)
    simulated = [
        (rng.binomial(counts, row, (resamples, len(counts))) / counts).std(axis=1, ddof=1) for row in accuracies
    ]
    family = Family(accuracies.std(axis=1, ddof=1), np.stack(simulated))
    steady, error = _steadiness(confidences)
    # a class that happens to be answered better is mostly also answered more steadily: the noise of
    # the two factors is of one sample
    shared = _correlation(hits, confidences)
    of_spread = family.simulated - family.simulated.mean(axis=1, keepdims=True)
    of_spread = of_spread / np.maximum(of_spread.std(axis=1, keepdims=True), 1e-12)
    own = rng.standard_normal((_MEMBERS, resamples))
    noisy = np.clip(steady - error * (shared * of_spread + np.sqrt(1 - shared**2) * own), 0, 1)
    # as a loss, 1 - balance, which ascends with the spread; a steadier second factor can push it
    # below that of equal accuracies
    truths = 1 - np.sqrt((1 - family.truths) * steady)
    estimates = 1 - np.sqrt((1 - family.corrected(family.simulated)) * noisy)
    estimate = 1 - float(np.sqrt((1 - family.corrected(measured)) * steady))
    low, high = invert(estimate, truths, estimates, low=0.0)
    return max(0.0, 1 - high), min(1.0, 1 - low)


def _steadiness(groups: Sequence[Floats]) -> tuple[float, float]:
    """1 - the mean over classes of the standard deviation of the confidence, corrected for its bias, and its
    standard error.

    Both by the jackknife within each class; a class of one or two images tells nothing of its noise
    and stays uncorrected.
    """
    corrected, variances = [], []
    for values in groups:
        n = len(values)
        whole = float(values.std())
        if n < 3:
            corrected.append(whole)
            variances.append(0.0)
            continue
        _, without = _left_one_out(values, values)
        corrected.append(n * whole - (n - 1) * float(without.mean()))
        variances.append((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return 1 - float(np.mean(corrected)), float(np.sqrt(np.sum(variances))) / len(groups)


def _correlation(hits: Sequence[NDArray[np.bool_]], confidences: Sequence[Floats]) -> float:
    """Correlation between the noise of the spread of the class accuracies and that of the mean deviation of the
    confidence, in [-1, 1].

    To first order, from the jackknife within each class; 0 where one of the two has no noise.
    """
    means = np.array([values.mean() for values in hits])
    pulls = means - means.mean()  # how a class's accuracy moves the spread, up to a factor
    together, of_spread, of_deviation = 0.0, 0.0, 0.0
    for pull, right, values in zip(pulls, hits, confidences, strict=True):
        if len(values) < 3:
            continue
        means_without, deviations_without = (
            part - part.mean() for part in _left_one_out(right.astype(np.float64), values)
        )
        together += pull * float((means_without * deviations_without).sum())
        of_spread += pull**2 * float((means_without**2).sum())
        of_deviation += float((deviations_without**2).sum())
    scale = float(np.sqrt(of_spread * of_deviation))
    return float(np.clip(together / scale, -1, 1)) if scale > 0 else 0.0


def _left_one_out(hits: Floats, values: Floats) -> tuple[Floats, Floats]:
    """(n,) mean of ``hits`` and standard deviation of ``values`` without each image in turn."""
    n = len(values)
    sums, squares = values.sum() - values, (values**2).sum() - values**2
    return (hits.sum() - hits) / (n - 1), np.sqrt(np.maximum(squares / (n - 1) - (sums / (n - 1)) ** 2, 0))
