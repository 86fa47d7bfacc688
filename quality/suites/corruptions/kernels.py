"""Blur kernels of sub-pixel size, convolution with them, and fractal plasma."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

Images = NDArray[np.float32]
_REFERENCE_SIDE = 224
_SUPERSAMPLING = 32


def length_scale(images: Images) -> float:
    """By how much the published lengths shrink: the shorter side over 224."""
    return float(min(images.shape[1:3])) / _REFERENCE_SIDE


def convolve(images: Images, kernels: NDArray[np.float64]) -> Images:
    """Convolve (N, H, W, C) with one kernel (k, k) or one an image (N, k, k), k odd; borders are mirrored."""
    if kernels.ndim == 2:
        kernels = kernels[None]
    half = kernels.shape[1] // 2
    padded = np.pad(
        images,
        ((0, 0), (half, half), (half, half), (0, 0)),
        mode="reflect" if half < min(images.shape[1:3]) else "symmetric",
    )
    result = fftconvolve(padded, kernels[..., None].astype(np.float32), mode="valid", axes=(1, 2))
    return np.asarray(result, np.float32)


def disk(radius: float) -> NDArray[np.float64]:
    """(k, k) kernel of a disk over the bilinearly interpolated image: each point of the disk is shared among the
    four nearest pixels.

    So radii below a pixel blur as well, which the published kernel of whole pixels does only by its second, fixed blur.
    """
    points = (np.arange(2 * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING * radius - radius
    y, x = (axis.ravel() for axis in np.meshgrid(points, points))
    inside = x**2 + y**2 <= radius**2
    return _splat(y[inside], x[inside], np.ones(inside.sum()), int(np.ceil(radius)))


def motion(radius: float, sigma: float, scale: float, angle: float) -> NDArray[np.float64]:
    """(k, k) kernel of a one-sided Gaussian streak.

    2 * radius + 1 points, one a pixel of a 224-pixel image, weighted exp(-i² / 2 sigma²), laid out
    along ``angle`` (degrees) at distances ``i * scale`` and shared bilinearly among the four
    nearest pixels.
    """
    i = np.arange(2 * int(radius) + 1)
    weights = np.exp(-(i**2) / (2 * sigma**2))
    distance = i * scale
    return _splat(
        distance * np.sin(np.deg2rad(angle)), distance * np.cos(np.deg2rad(angle)), weights, int(np.ceil(distance[-1]))
    )


def _splat(
    y: NDArray[np.float64], x: NDArray[np.float64], weights: NDArray[np.float64], half: int
) -> NDArray[np.float64]:
    """(2 half + 1, 2 half + 1) kernel of sum 1: points at (y, x) from the centre, each shared bilinearly among four
    pixels.
    """
    kernel = np.zeros((2 * half + 2, 2 * half + 2))
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - (y - top)) * np.abs(1 - right - (x - left))
            np.add.at(kernel, (half + top + down, half + left + right), weights * share)
    kernel = kernel[:-1, :-1]  # the last row and column only ever get shares of 0
    return np.asarray(kernel / kernel.sum())


def plasma(height: int, width: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(height, width) fractal clouds in [0, 1]: diamond-square on a torus, the noise shrinking by decay² a level.

    The square is the published code's: its noise is drawn from ±wibble and multiplied by wibble once more.
    """
    grid = np.zeros((1, 1))
    amplitude = 1.0
    while grid.shape[0] < max(height, width):
        size = grid.shape[0]
        wobble = amplitude * rng.uniform(-1, 1, (3, size, size))
        east, south = np.roll(grid, -1, 1), np.roll(grid, -1, 0)
        centre = (grid + east + south + np.roll(east, -1, 0)) / 4 + wobble[0]
        finer = np.empty((2 * size, 2 * size))
        finer[::2, ::2] = grid
        finer[1::2, 1::2] = centre
        finer[::2, 1::2] = (grid + east + centre + np.roll(centre, 1, 0)) / 4 + wobble[1]
        finer[1::2, ::2] = (grid + south + centre + np.roll(centre, 1, 1)) / 4 + wobble[2]
        grid = finer
        amplitude /= decay**2
    grid = grid - grid.min()
    return np.asarray((grid / grid.max())[:height, :width])
