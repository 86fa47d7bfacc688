"""Out-of-distribution robustness: the geometric mean over shifted sets of their accuracy relative to clean accuracy.

Sets with coarser labels (16 categories of model-vs-human) are decided by the mean probability of each category's classes; sets with
a part of the classes (200 of ImageNet-R) let only these compete. (Geirhos et al. 2021; Hendrycks et al. 2021; QUBA, arXiv 2503.17110.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.errors import EvaluationError
from quality.dimensions import HIGHER_IS_BETTER
from quality.dimensions.result import DimensionResult
from quality.statistics.statistics import (
    RESAMPLES,
    geometric_mean,
    geometric_means,
    percentile_interval,
    probabilities_of,
    resampled_means,
    wilson_interval,
)


def ood_robustness(
    clean: NDArray[np.bool_], shifted: Mapping[str, NDArray[np.bool_]], *, resamples: int = RESAMPLES, seed: int = 0
) -> DimensionResult:
    """geo over the sets of A_k / A0.

    Args:
        clean: bool (N,) right answers on clean images.
        shifted: set to bool (M_k,) right answers. If all have N entries, they are taken to be of the same images as ``clean``.
        resamples: bootstrap resamples, 0 for none.
        seed: of the resamples.

    Returns:
        value >= 0; ``factors``: the ratio of each set, and ``clean_accuracy``; table ``accuracy`` per set.

    Raises:
        EvaluationError: for no set, an empty one, or a model without one right answer on clean images.
    """
    ratios, value, interval = relative_accuracies(clean, shifted, resamples, seed)
    return DimensionResult(
        value,
        HIGHER_IS_BETTER["ood_robustness"],
        sum(len(hits) for hits in shifted.values()),
        interval,
        {**ratios, "clean_accuracy": float(clean.mean())},
        {"accuracy": {name: float(hits.mean()) for name, hits in shifted.items()}},
    )


def relative_accuracies(
    clean: NDArray[np.bool_], sets: Mapping[str, NDArray[np.bool_]], resamples: int, seed: int
) -> tuple[dict[str, float], float, tuple[float, float] | None]:
    """A_k / A0 of each set, their geometric mean and its bootstrap interval, with images drawn in pairs where the sets have N images."""
    if not sets or any(len(hits) == 0 for hits in sets.values()):
        raise EvaluationError("There are no images to measure robustness on.", "Give each set at least one.")
    if not clean.any():
        raise EvaluationError("Relative accuracy is undefined: no clean image is classified rightly.", "Check the order of the labels.")
    ratios = {name: float(hits.mean() / clean.mean()) for name, hits in sets.items()}
    if all(len(hits) == len(clean) for hits in sets.values()):
        means = resampled_means(np.stack([clean, *sets.values()], axis=1), resamples, seed)
    else:
        alone = [resampled_means(hits[:, None], resamples, seed + i) for i, hits in enumerate([clean, *sets.values()])]
        means = np.concatenate(alone, axis=1)
    means = means[means[:, 0] > 0]
    value = geometric_mean(list(ratios.values()))
    interval = percentile_interval(geometric_means(means[:, 1:] / means[:, :1]))
    if interval is not None and any(not hits.any() for hits in sets.values()):
        # resampling no right answer gives none: such a set may still have as many as Wilson's interval of 0 allows
        most = [float(hits.mean()) if hits.any() else wilson_interval(0, len(hits))[1] for hits in sets.values()]
        interval = (0.0, max(interval[1], geometric_mean(np.array(most) / clean.mean())))
    return ratios, value, interval


def category_predictions(outputs: NDArray[Any], categories: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """int64 (N,): the category with the highest mean probability over its classes."""
    probabilities = probabilities_of(outputs)
    means = np.stack([probabilities[:, list(classes)].mean(axis=1) for classes in categories], axis=1)
    return np.asarray(means.argmax(axis=1))


def subset_predictions(outputs: NDArray[Any], classes: Sequence[int]) -> NDArray[np.int64]:
    """int64 (N,): the class of ``classes`` with the highest output, as an index among all outputs."""
    chosen = np.asarray(classes, np.int64)
    return np.asarray(chosen[outputs[:, chosen].argmax(axis=1)])


def top1_categories(outputs: NDArray[Any], categories: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """int64 (N,): the category of the class with the highest output, -1 if it is in none. (As ImageNet-9 is decided, Xiao et al. 2021.)"""
    of_class = np.full(outputs.shape[1], -1, np.int64)
    for number, classes in enumerate(categories):
        of_class[list(classes)] = number
    return np.asarray(of_class[outputs.argmax(axis=1)])
