"""Corruption robustness: accuracy on corrupted images relative to clean ones, mean over severities, then over
corruptions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.accuracy import require_right_answers
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import RESAMPLES, wilson_interval
from elude.quality.statistics.ratio_interval import ratio_interval


def corruption_robustness(
    clean: NDArray[np.bool_], corrupted: Mapping[tuple[str, int], NDArray[np.bool_]], *, resamples: int = RESAMPLES
) -> DimensionResult:
    """Mean over corruptions of the mean over severities of A_{c,s} / A0.

    Args:
        clean: bool (N,), whether each clean image is classified rightly.
        corrupted: the same for each (corruption, severity), of the same images in the same order.
        resamples: 0 for no interval, as in the other dimensions; this one needs no resampling.

    Returns:
        value >= 0 (above 1 if corruption helps); factor ``clean_accuracy``; tables ``relative`` per
        corruption and ``accuracy`` per corruption and severity ("fog/3").

    Raises:
        EvaluationError: for no corruption, other numbers of images, or a model without one right
            answer on clean images.
    """
    if not corrupted:
        raise EvaluationError("No corruption was measured.", "Name at least one in the suite.")
    if any(hits.shape != clean.shape for hits in corrupted.values()):
        raise EvaluationError("Clean and corrupted answers are not of the same images.", "Give one answer an image.")
    require_right_answers(clean)
    names = list(dict.fromkeys(name for name, _ in corrupted))
    matrix = np.stack([clean, *corrupted.values()], axis=1)
    accuracies = matrix.mean(axis=0)
    # one weight an entry, so that each corruption counts the same however many severities it has
    per_name = {name: np.array([key[0] == name for key in corrupted], np.float64) for name in names}
    weights = np.sum([member / member.sum() for member in per_name.values()], axis=0) / len(names)
    kept = matrix[:, 1:] @ weights  # of each image, the weighted share of conditions under which it is right
    value = float(accuracies[1:] @ weights / accuracies[0])
    interval = None
    if resamples and value > 0:
        interval = ratio_interval(value, [kept / kept.mean() - clean / accuracies[0]])
    elif resamples:
        interval = (0.0, wilson_interval(0, len(clean))[1] / float(accuracies[0]))
    return DimensionResult(
        value,
        HIGHER_IS_BETTER["corruption_robustness"],
        len(clean),
        interval,
        {"clean_accuracy": float(accuracies[0])},
        {
            "relative": {
                name: float(accuracies[1:] @ (member / member.sum()) / accuracies[0])
                for name, member in per_name.items()
            },
            "accuracy": {
                f"{name}/{severity}": float(a) for (name, severity), a in zip(corrupted, accuracies[1:], strict=True)
            },
        },
    )
