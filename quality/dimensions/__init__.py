"""The nine dimensions of quality, one a file: pure functions of outputs and labels.

Definitions: ``docs/quality.md``.
"""

from __future__ import annotations

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
