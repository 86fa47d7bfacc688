"""The nine dimensions of quality, one per file: pure functions of outputs and labels.

Definitions: ``docs/quality.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "adversarial_robustness": True,
    "corruption_robustness": True,
    "ood_robustness": True,
    "calibration_error": False,
    "class_balance": True,
    "object_focus": True,
    "shape_bias": True,
    "params_m": False,
}
DIMENSIONS = tuple(HIGHER_IS_BETTER)
# What ``--quick`` measures: no attacks, no made images.
QUICK = ("accuracy", "calibration_error", "class_balance", "corruption_robustness", "params_m")

# The values that a dimension can have: relative accuracies may exceed 1, and foreign backgrounds may help.
RANGES: Mapping[str, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "adversarial_robustness": (0.0, math.inf),
    "corruption_robustness": (0.0, math.inf),
    "ood_robustness": (0.0, math.inf),
    "calibration_error": (0.0, 1.0),
    "class_balance": (0.0, 1.0),
    "object_focus": (0.0, 2.0),
    "shape_bias": (0.0, 1.0),
    "params_m": (0.0, math.inf),
}

# Factors that have the direction and the range of their dimension, and can be gated and compared by themselves.
GATED_FACTORS: Mapping[str, tuple[str, ...]] = {
    "adversarial_robustness": ("fgsm", "pgd", "fgsm_1", "pgd_1"),
    "calibration_error": ("ece", "ace"),
    "class_balance": ("accuracy_balance", "confidence_balance"),
}
