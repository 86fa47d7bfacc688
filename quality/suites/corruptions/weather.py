"""Weather: snow, frost, fog, brightness. Images are float32 (N, H, W, 3) in [0, 1];

``level`` is the severity minus 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from elude.quality.suites.corruptions.blur import enlarge
from elude.quality.suites.corruptions.kernels import convolve, length_scale, motion, plasma

Images = NDArray[np.float32]
Rngs = Sequence[np.random.Generator]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def snow(images: Images, level: int, rngs: Rngs) -> Images:
    """Whiten, and add two layers of driven flakes, one turned by 180 degrees. Flakes are at least one pixel."""
    mean, deviation, zoom, threshold, radius, sigma, keep = [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ][level]
    scale = length_scale(images)
    flakes = np.stack([rng.normal(mean, deviation, images.shape[1:3]) for rng in rngs])[..., None].astype(np.float32)
    flakes = enlarge(flakes, max(1.0, zoom * scale))
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = convolve(flakes, np.stack([motion(radius, sigma, scale, rng.uniform(-135, -45)) for rng in rngs]))
    grey = (images @ _LUMA)[..., None]
    whitened = keep * images + (1 - keep) * np.maximum(images, grey * 1.5 + 0.5)
    return np.asarray(whitened + flakes + flakes[:, ::-1, ::-1], np.float32)


def frost(images: Images, level: int, rngs: Rngs) -> Images:
    """Dim, and overlay ice.

    The published code blends six photographs of frost; these here are ridges of fractal plasma.
    """
    keep, ice = [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)][level]
    height, width = images.shape[1:3]
    tint = np.array([0.92, 0.97, 1.0])
    layers = []
    for rng in rngs:
        ridges = (1 - np.abs(2 * plasma(height, width, 1.3, rng) - 1)) ** 2
        layers.append(np.clip(0.25 + 0.75 * ridges, 0, 1)[..., None] * tint)
    return np.asarray(keep * images + ice * np.stack(layers), np.float32)


def fog(images: Images, level: int, rngs: Rngs) -> Images:
    """Add clouds of plasma and scale back to the image's own brightest value."""
    amount, decay = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)][level]
    height, width = images.shape[1:3]
    clouds = np.stack([plasma(height, width, decay, rng) for rng in rngs])[..., None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((images + amount * clouds) * brightest / (brightest + amount), np.float32)


def brightness(images: Images, level: int, rngs: Rngs) -> Images:
    """Add 0.1 … 0.5 to V of HSV: scales each pixel by V' / V; black becomes grey."""
    value = images.max(axis=3, keepdims=True)
    brighter = np.clip(value + [0.1, 0.2, 0.3, 0.4, 0.5][level], 0, 1)
    return np.asarray(np.where(value > 0, images * (brighter / np.where(value > 0, value, 1)), brighter), np.float32)
