"""Blur: defocus, frosted glass, motion, zoom. Images are float32 (N, H, W, 3) in [0, 1];

``level`` is the severity minus 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from elude.quality.suites.corruptions.kernels import convolve, disk, length_scale, motion

Images = NDArray[np.float32]
Rngs = Sequence[np.random.Generator]


def defocus_blur(images: Images, level: int, rngs: Rngs) -> Images:
    """Convolve with a disk of radius 3 … 10 pixels of 224.

    Its rim is anti-aliased by interpolation instead of a second small blur.
    """
    return convolve(images, disk([3, 4, 6, 8, 10][level] * length_scale(images)))


def glass_blur(images: Images, level: int, rngs: Rngs) -> Images:
    """Blur, give each pixel the value of a random neighbour up to 1 … 4 pixels of 224 away (at least one), blur again.

    The published code means to swap the two, but both sides of its assignment are views of one array: the neighbour
    keeps its value. ImageNet-C was made that way, and a swap is weaker, so it is a copy here too; as there, shifts
    run from -reach to reach - 1.
    """
    sigma, reach, rounds = [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][level]
    scale = length_scale(images)
    sigmas = (0, sigma * scale, sigma * scale, 0)
    result = gaussian_filter(images, sigmas)
    reach = max(1, round(reach * scale))
    count, height, width = images.shape[:3]
    shifts = np.stack([rng.integers(-reach, reach, size=(rounds, height, width, 2)) for rng in rngs])
    numbers = np.arange(count)
    for r in range(rounds):
        # one pixel after another, as copies must see earlier copies; all images at once
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                result[:, y, x] = result[numbers, y + shifts[:, r, y, x, 0], x + shifts[:, r, y, x, 1]]
    return np.asarray(gaussian_filter(result, sigmas), np.float32)


def motion_blur(images: Images, level: int, rngs: Rngs) -> Images:
    """Smear along a random direction within 45 degrees of the horizontal."""
    radius, sigma = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)][level]
    scale = length_scale(images)
    return convolve(images, np.stack([motion(radius, sigma, scale, rng.uniform(-45, 45)) for rng in rngs]))


def zoom_blur(images: Images, level: int, rngs: Rngs) -> Images:
    """Mean of the image and of its enlargements by up to 10 … 30 %."""
    stop, step = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][level]
    zooms = np.arange(1, stop, step)
    total = images.copy()
    for zoom in zooms:
        total += enlarge(images, float(zoom))
    return np.asarray(total / (len(zooms) + 1), np.float32)


def enlarge(images: Images, zoom: float) -> Images:
    """(N, H, W, C) enlarged about the centre by ``zoom`` >= 1 and cropped to its size, bilinear."""
    rows, columns = _zoom_matrix(images.shape[1], zoom), _zoom_matrix(images.shape[2], zoom)
    return np.asarray(np.einsum("yh,nhwc,xw->nyxc", rows, images, columns, optimize=True), np.float32)


def _zoom_matrix(side: int, zoom: float) -> NDArray[np.float32]:
    """(side, side) linear interpolation at (i - centre) / zoom + centre."""
    centre = (side - 1) / 2
    position = (np.arange(side) - centre) / zoom + centre
    low = np.clip(np.floor(position).astype(int), 0, side - 2)
    matrix = np.zeros((side, side), np.float32)
    matrix[np.arange(side), low] = 1 - (position - low)
    matrix[np.arange(side), low + 1] = position - low
    return matrix
