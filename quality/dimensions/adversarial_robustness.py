"""Adversarial robustness: accuracy under FGSM and under PGD, each relative to clean accuracy; their geometric mean.

How the images are attacked: ``quality/evaluation/attacks.py``. (QUBA, arXiv 2503.17110: epsilon
    8/255 in pixels, all images, untargeted.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.ood_robustness import relative_accuracies
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import RESAMPLES


def adversarial_robustness(
    clean: NDArray[np.bool_],
    fgsm: NDArray[np.bool_],
    pgd: NDArray[np.bool_],
    *,
    weaker: Mapping[str, NDArray[np.bool_]] | None = None,
    resamples: int = RESAMPLES,
) -> DimensionResult:
    """geo(A_PGD / A0, A_FGSM / A0).

    Args:
        clean: bool (N,) right answers on the clean images.
        fgsm, pgd: bool (N,) right answers under the published attacks, on the same images in the same order.
        weaker: the same under further attacks; they become factors and are no part of the value.
        resamples: 0 for no intervals.

    Returns:
        value >= 0; factors: the ratio of each attack, with its interval, and ``clean_accuracy``. An undefended model
        keeps nothing under PGD, and the value is 0 then whatever happens under the other attacks: look at the factors.

    Raises:
        EvaluationError: for other numbers of images, or a model without one right answer on clean images.
    """
    published = {"pgd": pgd, "fgsm": fgsm}
    ratios, value, interval = relative_accuracies(clean, published, True, bool(resamples))
    intervals = {}
    for name, hits in (published | dict(weaker or {})).items():
        of_one, _, ends = relative_accuracies(clean, {name: hits}, True, bool(resamples))
        ratios |= of_one
        if ends is not None:
            intervals[name] = ends
    factors = {**ratios, "clean_accuracy": float(clean.mean())}
    higher = HIGHER_IS_BETTER["adversarial_robustness"]
    return DimensionResult(value, higher, len(clean), interval, factors, factor_intervals=intervals)
