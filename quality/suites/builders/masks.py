"""Masks of objects that stand on a dark background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label

THRESHOLD = 12  # of 255: above the noise of JPEG, below dark cloth
_HOLE, _SPECK = 1 / 100, 1 / 200  # of the image's area


def dark_background_masks(pixels: NDArray[np.uint8], threshold: int = THRESHOLD) -> NDArray[np.bool_]:
    """bool (N, H, W) of uint8 (N, H, W, 3): where the object is.

    Brighter than ``threshold`` in any channel; holes and specks of less than about 1 % of the image
    are closed and removed, larger holes (the handle of a bag) stay open.
    """
    masks = pixels.max(axis=3) > threshold
    area = pixels.shape[1] * pixels.shape[2]
    return np.stack([_without_small(_fill_small(mask, area * _HOLE), area * _SPECK) for mask in masks])


def _fill_small(mask: NDArray[np.bool_], size: float) -> NDArray[np.bool_]:
    holes = binary_fill_holes(mask) & ~mask
    return np.asarray(mask | (holes & ~_without_small(holes, size)))


def _without_small(mask: NDArray[np.bool_], size: float) -> NDArray[np.bool_]:
    parts, _ = label(mask)
    sizes = np.bincount(parts.ravel())
    keep = sizes >= size
    keep[0] = False
    return np.asarray(keep[parts])
