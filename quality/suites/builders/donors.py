"""Which object lends its texture to which: usable objects, and seeded choice by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError

MIN_SIDE = 3  # a smaller square has no texture
_MIN_AREA = 0.02  # of the image: less is no object


def usable(masks: NDArray[np.bool_], squares: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64, the images whose mask holds an object with a texture.

    Raises:
        EvaluationError: if there are none.
    """
    found = np.flatnonzero((squares[:, 2] >= MIN_SIDE) & (masks.mean(axis=(1, 2)) >= _MIN_AREA))
    if len(found) == 0:
        raise EvaluationError(
            "No image has an object on a dark background.", "Give images with objects on black, or ready-made sets."
        )
    return found


def choose(labels: NDArray[np.int64], seed: int, *, same: bool) -> NDArray[np.int64]:
    """int64 (N,): for each image another one, of the same or of another class.

    Raises:
        EvaluationError: if a class has no other image, or there is no other class.
    """
    rng = np.random.default_rng(seed)
    chosen = np.empty(len(labels), np.int64)
    for i, own in enumerate(labels):
        candidates = np.flatnonzero((labels == own) == same)
        candidates = candidates[candidates != i]
        if len(candidates) == 0:
            what = "another image of the same class" if same else "an image of another class"
            raise EvaluationError(f"Image {i} needs {what}, and there is none.", "Give more images or a larger budget.")
        chosen[i] = rng.choice(candidates)
    return chosen
