"""Pictures whose answers are plain."""

from __future__ import annotations

import numpy as np


def scenes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles on black: class 0 lies and is dark (80), class 1 stands and is bright (200). uint8 (count, 20, 20,
    3) and labels.
    """
    pixels = np.zeros((count, 20, 20, 3), np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(pixels, labels, strict=True):
        if label:
            image[2:18, 7:13] = 200
        else:
            image[7:13, 2:18] = 80
    return pixels, labels
