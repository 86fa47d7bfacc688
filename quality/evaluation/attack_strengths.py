"""FGSM and PGD at several strengths: at 8/255, which is the published one, an undefended model keeps nothing under PGD,
so that good and bad ones look the same; 1/255 tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from elude.quality.evaluation.attacks import EPSILON, PGD_STEP, PGD_STEPS, attacker

STRENGTHS: Mapping[str, float] = {"": EPSILON, "_1": 1 / 255}  # suffix of the factor to epsilon


class Attacks:
    """Every attack at every strength on one model; call it as ``elude.quality.evaluation.observe`` does.

    Attributes:
        settings: of each attack by the name of its factor.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self._of_strength = {suffix: attacker(model, seed, epsilon) for suffix, epsilon in STRENGTHS.items()}
        self.settings: dict[str, dict[str, float]] = {}
        for suffix, epsilon in STRENGTHS.items():
            self.settings[f"fgsm{suffix}"] = {"epsilon": epsilon}
            step = PGD_STEP * epsilon / EPSILON
            self.settings[f"pgd{suffix}"] = {"epsilon": epsilon, "step": step, "steps": PGD_STEPS}

    def __call__(
        self, pixels: NDArray[np.float32], labels: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        return {
            f"{kind}{suffix}": images
            for suffix, attack in self._of_strength.items()
            for kind, images in attack(pixels, labels, numbers).items()
        }
