"""The fifteen common corruptions of Hendrycks & Dietterich (ICLR 2019) at five severities, written anew with numpy,
scipy and PIL.

The published constants are for images of 224 pixels. Here every *length* (blur radius, motion
length, displacement, flake size) is multiplied by ``min(H, W) / 224``, so that an image of any size
is degraded as much, relative to itself; at 224 pixels the constants are the published ones. Intensities
(noise, brightness, contrast), the relative size of ``pixelate`` and the quality of
``jpeg_compression`` do not depend on the size. Random numbers come from (seed, corruption,
severity, number of the image) alone: batches, order and subsets do not change an image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import UsageError
from elude.quality.suites.corruptions import blur, digital, noise, weather

Pixels = NDArray[np.uint8]
_Corruption = Callable[[NDArray[np.float32], int, Sequence[np.random.Generator]], NDArray[np.float32]]

_FUNCTIONS: Mapping[str, _Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
CORRUPTIONS = tuple(_FUNCTIONS)
SEVERITIES = (1, 2, 3, 4, 5)
VERSION = 2  # raised whenever the same image would be corrupted otherwise
_DETERMINISTIC = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}


def corrupt(pixels: Pixels, name: str, severity: int, *, numbers: Sequence[int] | None = None, seed: int = 0) -> Pixels:
    """Corrupt a batch of images that are already resized and cropped.

    Args:
        pixels: uint8 (N, H, W, 3).
        name: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        numbers: N numbers of the images in their set, which with ``seed`` choose the random
            numbers; 0…N-1 if not given.
        seed: of the random numbers.

    Returns:
        uint8 (N, H, W, 3); ``pixels`` stays as it is.

    Raises:
        UsageError: for an unknown corruption or severity, or pixels of another shape or type.
    """
    if name not in _FUNCTIONS:
        raise UsageError(f"{name!r} is not a corruption.", f"Use one of {', '.join(CORRUPTIONS)}.")
    if severity not in SEVERITIES:
        raise UsageError(f"Severity {severity} of {name} is not known.", "Use 1 to 5.")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or min(pixels.shape[1:3]) < 4:
        raise UsageError(
            f"Pixels are uint8 (images, height >= 4, width >= 4, 3), not {pixels.dtype} {pixels.shape}.",
            "Convert them first.",
        )
    key = zlib.crc32(name.encode())
    numbers = range(len(pixels)) if numbers is None else numbers
    if len(numbers) != len(pixels):
        raise UsageError(f"{len(numbers)} numbers for {len(pixels)} images.", "Give one per image.")
    rngs = [] if name in _DETERMINISTIC else [np.random.default_rng([seed, key, severity, int(n)]) for n in numbers]
    result = _FUNCTIONS[name](pixels.astype(np.float32) / np.float32(255), severity - 1, rngs)
    return np.asarray(np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8))
