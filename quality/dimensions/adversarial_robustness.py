"""Adversarial robustness: accuracy under FGSM and under PGD, each relative to clean accuracy; their geometric mean.

How the images are attacked: ``quality/evaluation/attacks.py``. (QUBA, arXiv 2503.17110: epsilon
    8/255 in pixels, all images, untargeted.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.ood_robustness import relative_accuracies
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import RESAMPLES


def adversarial_robustness(
    clean: NDArray[np.bool_], fgsm: NDArray[np.bool_], pgd: NDArray[np.bool_], *, resamples: int = RESAMPLES
) -> DimensionResult:
    """geo(A_PGD / A0, A_FGSM / A0) of bool (N,) right answers on the same images in the same order;

    ``resamples`` 0 for no interval.

    Raises:
        EvaluationError: for other numbers of images, or a model without one right answer on clean images.
    """
    ratios, value, interval = relative_accuracies(clean, {"pgd": pgd, "fgsm": fgsm}, True, bool(resamples))
    factors = {"pgd": ratios["pgd"], "fgsm": ratios["fgsm"], "clean_accuracy": float(clean.mean())}
    return DimensionResult(value, HIGHER_IS_BETTER["adversarial_robustness"], len(clean), interval, factors)
