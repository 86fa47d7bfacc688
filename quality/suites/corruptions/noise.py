"""Noise: Gaussian, shot (Poisson) and impulse. Images are float32 (N, H, W, 3) in [0, 1];

``level`` is the severity minus 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Rngs = Sequence[np.random.Generator]


def gaussian_noise(images: Images, level: int, rngs: Rngs) -> Images:
    """Add normal noise of standard deviation 0.08 … 0.38."""
    scale = np.float32([0.08, 0.12, 0.18, 0.26, 0.38][level])
    return np.stack(
        [image + scale * rng.standard_normal(image.shape, np.float32) for image, rng in zip(images, rngs, strict=True)]
    )


def shot_noise(images: Images, level: int, rngs: Rngs) -> Images:
    """Count 60 … 3 photons at full brightness."""
    photons = [60, 25, 12, 5, 3][level]
    return np.stack(
        [rng.poisson(image * photons) / np.float32(photons) for image, rng in zip(images, rngs, strict=True)]
    )


def impulse_noise(images: Images, level: int, rngs: Rngs) -> Images:
    """Set a share of 0.03 … 0.27 of all values to 0 or 1, half each."""
    share = [0.03, 0.06, 0.09, 0.17, 0.27][level]
    result = images.copy()
    for image, rng in zip(result, rngs, strict=True):
        draw = rng.random(image.shape, np.float32)
        image[draw < share / 2] = 0
        image[draw > 1 - share / 2] = 1
    return result
