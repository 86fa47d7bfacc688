"""The texture of an object: the largest square inside its mask, tiled by mirroring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def largest_squares(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64 (N, 3): top, left and side of the largest square inside each mask (N, H, W), side 0 for an empty mask.

    A square that ends at a pixel is one larger than the smallest of those that end above, left and above-left of it.
    """
    count, height, width = masks.shape
    side = np.zeros((count, height + 1, width + 1), np.int64)
    for y in range(height):
        for x in range(width):
            smallest = np.minimum(np.minimum(side[:, y, x + 1], side[:, y + 1, x]), side[:, y, x])
            side[:, y + 1, x + 1] = np.where(masks[:, y, x], smallest + 1, 0)
    flat = side[:, 1:, 1:].reshape(count, -1)
    end = flat.argmax(axis=1)
    sides = flat[np.arange(count), end]
    y, x = np.divmod(end, width)
    return np.stack([y - sides + 1, x - sides + 1, sides], axis=1)


def tiled(image: NDArray[np.uint8], square: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3): the ``square`` of ``image`` mirrored over and over until it fills the image's size."""
    height, width = image.shape[:2]
    top, left, side = (int(v) for v in square)
    return image[top + _mirrored(height, side)][:, left + _mirrored(width, side)]


def _mirrored(length: int, side: int) -> NDArray[np.int64]:
    """0 … side - 1, side - 1 … 0, and so on, ``length`` of them."""
    cycle = np.concatenate([np.arange(side), np.arange(side)[::-1]])
    return np.asarray(np.resize(cycle, length))
