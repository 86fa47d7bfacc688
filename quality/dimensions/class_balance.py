"""Class balance: whether all classes are recognised equally well, and each with steady confidence.

geo(1 - std over classes of the class accuracy, 1 - mean over classes of the std of the true class's confidence); the first
standard deviation with ddof 1, the second with ddof 0. (QUBA, arXiv 2503.17110.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.errors import EvaluationError
from quality.dimensions import HIGHER_IS_BETTER
from quality.dimensions.accuracy import correct
from quality.result import DimensionResult
from quality.statistics import RESAMPLES, Floats, basic_interval, check_labels, geometric_mean, geometric_means, probabilities_of


def class_balance(
    outputs: NDArray[Any], labels: NDArray[Any], names: list[str] | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> DimensionResult:
    """Class balance with ``factors`` accuracy_balance and confidence_balance.

    Args:
        outputs: (N, C) logits or probabilities.
        labels: integer (N,). Classes without images are left out.
        names: C names of the classes for the tables.
        resamples: bootstrap resamples within each class, 0 for none.
        seed: of the resamples.

    Returns:
        value in [0, 1]; basic bootstrap interval (few images a class make a model look less balanced than it is);
        tables ``accuracy`` and ``confidence_std`` per class.

    Raises:
        EvaluationError: for outputs or labels that do not fit, or images of one class only.
    """
    probabilities = probabilities_of(outputs)
    labels = check_labels(labels, *probabilities.shape)
    present = np.unique(labels)
    if len(present) < 2:
        raise EvaluationError("Class balance compares classes, and the images are all of one.", "Give images of at least two classes.")
    hits = correct(outputs, labels).astype(np.float64)
    confidence = probabilities[np.arange(len(labels)), labels]
    rng = np.random.default_rng(seed)
    means, stds = np.empty(len(present)), np.empty(len(present))
    mean_samples, std_samples = np.empty((resamples, len(present))), np.empty((resamples, len(present)))
    for i, c in enumerate(present):
        rows = np.flatnonzero(labels == c)
        means[i], stds[i] = hits[rows].mean(), confidence[rows].std()
        drawn = rows[rng.integers(len(rows), size=(resamples, len(rows)))]
        mean_samples[:, i], std_samples[:, i] = hits[drawn].mean(axis=1), confidence[drawn].std(axis=1)
    factors = _factors(means[None], stds[None])[0]
    value = geometric_mean(factors)
    label = [names[c] if names else str(c) for c in present]
    return DimensionResult(
        value,
        HIGHER_IS_BETTER["class_balance"],
        len(labels),
        basic_interval(value, geometric_means(_factors(mean_samples, std_samples)), low=0.0, high=1.0),
        {"accuracy_balance": float(factors[0]), "confidence_balance": float(factors[1])},
        {"accuracy": dict(zip(label, means.tolist(), strict=True)), "confidence_std": dict(zip(label, stds.tolist(), strict=True))},
    )


def _factors(accuracies: Floats, stds: Floats) -> Floats:
    """(B, 2) factors of class accuracies (B, classes) and confidence deviations (B, classes)."""
    return np.stack([1 - accuracies.std(axis=1, ddof=1), 1 - stds.mean(axis=1)], axis=1)
