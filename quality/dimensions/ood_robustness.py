"""Out-of-distribution robustness: the geometric mean over shifted sets of their accuracy relative to clean accuracy.

Sets with coarser labels (16 categories of model-vs-human) are decided by the mean probability of
each category's classes; sets with a part of the classes (200 of ImageNet-R) let only these compete.
(Geirhos et al. 2021; Hendrycks et al. 2021; QUBA, arXiv 2503.17110.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.accuracy import require_right_answers
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import RESAMPLES, geometric_mean, probabilities_of, wilson_interval
from elude.quality.statistics.ratio_interval import ratio_interval


def ood_robustness(
    clean: NDArray[np.bool_],
    shifted: Mapping[str, NDArray[np.bool_]],
    *,
    paired: bool | None = None,
    resamples: int = RESAMPLES,
) -> DimensionResult:
    """geo over the sets of A_k / A0.

    Args:
        clean: bool (N,) right answers on clean images.
        shifted: set to bool (M_k,) right answers.
        paired: whether all sets hold the same images as ``clean`` in the same order; by default, if all have N entries.
        resamples: 0 for no interval, as in the other dimensions; this one needs no resampling.

    Returns:
        value >= 0; ``factors``: the ratio of each set, and ``clean_accuracy``; table ``accuracy`` per set.

    Raises:
        EvaluationError: for no set, an empty one, or a model without one right answer on clean images.
    """
    ratios, value, interval = relative_accuracies(clean, shifted, paired, bool(resamples))
    intervals = {}
    for name, hits in shifted.items():
        ends = relative_accuracies(clean, {name: hits}, paired, bool(resamples))[2]
        if ends is not None:
            intervals[name] = ends
    return DimensionResult(
        value,
        HIGHER_IS_BETTER["ood_robustness"],
        sum(len(hits) for hits in shifted.values()),
        interval,
        {**ratios, "clean_accuracy": float(clean.mean())},
        {"accuracy": {name: float(hits.mean()) for name, hits in shifted.items()}},
        factor_intervals=intervals,
    )


def relative_accuracies(
    clean: NDArray[np.bool_], sets: Mapping[str, NDArray[np.bool_]], paired: bool | None, with_interval: bool
) -> tuple[dict[str, float], float, tuple[float, float] | None]:
    """A_k / A0 of each set, their geometric mean, and its interval if wanted; arguments as in
    :func:`ood_robustness`.
    """
    if not sets or any(len(hits) == 0 for hits in sets.values()):
        raise EvaluationError("There are no images to measure robustness on.", "Give each set at least one.")
    require_right_answers(clean)
    same_size = all(len(hits) == len(clean) for hits in sets.values())
    if paired and not same_size:
        raise EvaluationError("Clean and changed answers are not of the same images.", "Give one answer an image.")
    ratios = {name: float(hits.mean() / clean.mean()) for name, hits in sets.items()}
    value = geometric_mean(list(ratios.values()))
    return (
        ratios,
        value,
        _interval(clean, list(sets.values()), same_size if paired is None else paired) if with_interval else None,
    )


def _interval(clean: NDArray[np.bool_], sets: Sequence[NDArray[np.bool_]], paired: bool) -> tuple[float, float]:
    # a set without a right answer may still have as many as Wilson's interval of 0 allows
    rates = [float(hits.mean()) if hits.any() else wilson_interval(0, len(hits))[1] for hits in sets]
    estimate = geometric_mean(np.array(rates) / clean.mean())
    parts = [hits / (rate * len(sets)) for hits, rate in zip(sets, rates, strict=True)]
    base = clean / clean.mean()
    low, high = ratio_interval(estimate, [np.sum(parts, axis=0) - base] if paired else [base, *parts])
    return (low if all(hits.any() for hits in sets) else 0.0), high


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
    """int64 (N,): the category of the class with the highest output, -1 if it is in none.

    (As ImageNet-9 is decided, Xiao et al. 2021.)
    """
    of_class = np.full(outputs.shape[1], -1, np.int64)
    for number, classes in enumerate(categories):
        of_class[list(classes)] = number
    return np.asarray(of_class[outputs.argmax(axis=1)])
