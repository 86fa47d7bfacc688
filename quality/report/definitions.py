"""What each of the nine dimensions is, in a sentence or two for the page; every number there links here.

In full: ``docs/quality.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """A dimension's name, its formula as text, and what one should know about it."""

    title: str
    formula: str
    words: str


DEFINITIONS: Mapping[str, Definition] = {
    "accuracy": Definition("Accuracy", "A₀ = right answers ÷ images", "Top-1, on the clean validation images."),
    "adversarial_robustness": Definition(
        "Adversarial robustness",
        "√(A_PGD ÷ A₀ · A_FGSM ÷ A₀)",
        "Accuracy left under two untargeted attacks, relative to the clean one. No value of a pixel moves "
        "by more than 8/255; PGD takes "
        "ten steps of 2/255 from a random start.",
    ),
    "corruption_robustness": Definition(
        "Corruption robustness",
        "mean over corruptions of the mean over severities of A(c, s) ÷ A₀",
        "Noise, blur, weather and digital corruptions of Hendrycks & Dietterich, made after resize and crop.",
    ),
    "ood_robustness": Definition(
        "Out-of-distribution robustness",
        "geometric mean over shifted sets of A(k) ÷ A₀",
        "Accuracy on other kinds of pictures, such as edges, silhouettes and sketches, relative to the clean one.",
    ),
    "calibration_error": Definition(
        "Calibration error",
        "√(ECE · ACE)",
        "How far stated confidence lies from how often the model is right: of the top class in 15 bins of "
        "equal width (ECE), and of "
        "every class in 15 bins of equal mass (ACE). Few images make it larger than it is; the interval is "
        "about this measurement.",
    ),
    "class_balance": Definition(
        "Class balance",
        "√((1 − std of the class accuracies) · (1 − mean std of the true class’s confidence))",
        "Whether all classes are recognised equally well, and each with steady confidence.",
    ),
    "object_focus": Definition(
        "Object focus",
        "1 − (A on backgrounds of the same class − A on those of another class)",
        "1 means that a misleading background costs nothing.",
    ),
    "shape_bias": Definition(
        "Shape bias",
        "shape answers ÷ (shape answers + texture answers)",
        "On images whose shape is of one class and whose texture is of another.",
    ),
    "params_m": Definition(
        "Parameters, millions", "parameters ÷ 10⁶", "Buffers, such as running statistics, are not counted."
    ),
}
