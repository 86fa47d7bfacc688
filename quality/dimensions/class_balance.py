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

from elude.exporter.images.classes import FEWEST
from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.accuracy import correct
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.bootstrap import standard_interval
from elude.quality.statistics.intervals import RESAMPLES, Floats, check_labels, geometric_mean, probabilities_of


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
        resamples: bootstrap resamples of the intervals, each class by itself, 0 for none.
        seed: of the resamples.

    Returns:
        value in [0, 1], with a standard bootstrap interval, as have the factors; tables ``accuracy`` and
        ``confidence_std`` per class. Few images per class make a model look less balanced than it is.

    Raises:
        EvaluationError: for outputs or labels that do not fit, images of one class only, or fewer than two images per
            class on average: the value would be a function of accuracy alone.
    """
    probabilities = probabilities_of(outputs)
    labels = check_labels(labels, *probabilities.shape)
    present = np.unique(labels)
    if len(present) < 2:
        raise EvaluationError(
            "Class balance compares classes, and the images are all of one.", "Give images of at least two classes."
        )
    if len(labels) < FEWEST * len(present):
        raise EvaluationError(
            f"Class balance compares classes, and {len(labels)} images of {len(present)} are fewer than {FEWEST} each.",
            "Give more images per class, or fewer classes.",
        )
    hits = correct(outputs, labels)
    confidence = probabilities[np.arange(len(labels)), labels]
    groups = [np.flatnonzero(labels == c) for c in present]
    means = np.array([hits[rows].mean() for rows in groups])
    stds = np.array([confidence[rows].std() for rows in groups])
    factors = [float(1 - means.std(ddof=1)), float(1 - stds.mean())]
    interval, intervals = None, {}
    if resamples:
        drawn = _resampled([hits[rows] for rows in groups], [confidence[rows] for rows in groups], resamples, seed)
        interval = standard_interval(geometric_mean(factors), np.sqrt(drawn.prod(axis=0)))
        accuracy_ends, confidence_ends = (
            standard_interval(factor, row) for factor, row in zip(factors, drawn, strict=True)
        )
        intervals = {"accuracy_balance": accuracy_ends, "confidence_balance": confidence_ends}
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
        factor_intervals=intervals,
    )


def _resampled(hits: Sequence[NDArray[np.bool_]], confidences: Sequence[Floats], resamples: int, seed: int) -> Floats:
    """float64 (2, B): both factors of resamples of the images of each class."""
    rng = np.random.default_rng(seed)
    accuracies, deviations = np.empty((2, len(hits), resamples))
    for row, (right, confidence) in enumerate(zip(hits, confidences, strict=True)):
        images = len(right)
        weights = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
        accuracies[row] = weights @ right
        variance = weights @ confidence**2 - (weights @ confidence) ** 2
        deviations[row] = np.sqrt(np.maximum(variance, 0))
    return np.stack([1 - accuracies.std(axis=0, ddof=1), 1 - deviations.mean(axis=0)])
