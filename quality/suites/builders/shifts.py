"""Shifted styles of objects on a dark background, after the edge, silhouette and sketch sets of model-vs-human
(Geirhos et al. 2021).

There lines are dark on white; here they are light on black, as the background of the images is: the
style shifts, not the polarity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, sobel

Pixels = NDArray[np.uint8]
_LUMA = np.array([0.299, 0.587, 0.114])
_EDGE = 0.25  # of the strongest edge of the image


def edge(pixels: Pixels, masks: NDArray[np.bool_]) -> Pixels:
    """White where the Sobel gradient is at least a quarter of the image's strongest, black elsewhere."""
    grey = pixels @ _LUMA
    strength = np.stack(
        [np.hypot(sobel(image, 0), sobel(image, 1)) for image in grey]
    )  # sobel would smooth across a batch
    strongest = strength.max(axis=(1, 2), keepdims=True)
    return _grey((strength >= _EDGE * strongest) & (strongest > 0), 255)


def silhouette(pixels: Pixels, masks: NDArray[np.bool_]) -> Pixels:
    """The mask in white on black."""
    return _grey(masks, 255)


def sketch(pixels: Pixels, masks: NDArray[np.bool_]) -> Pixels:
    """Light strokes: where the grey image differs from its own blur (about 2 % of the side), scaled to its largest
    difference.
    """
    grey = pixels @ _LUMA
    sigma = max(1.0, 0.02 * min(grey.shape[1:]))
    strokes = np.abs(grey - gaussian_filter(grey, (0, sigma, sigma)))
    largest = strokes.max(axis=(1, 2), keepdims=True)
    return _grey(strokes / np.where(largest > 0, largest, 1), 255)


SHIFTS: Mapping[str, Callable[[Pixels, NDArray[np.bool_]], Pixels]] = {
    "edge": edge,
    "silhouette": silhouette,
    "sketch": sketch,
}


def _grey(values: NDArray[np.generic], scale: float) -> Pixels:
    return np.repeat(np.rint(np.asarray(values, np.float64) * scale).astype(np.uint8)[..., None], 3, axis=3)
