"""Digital: contrast, elastic transform, pixelate, JPEG. Images are float32 (N, H, W, 3) in [0, 1];

``level`` is the severity minus 1.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from elude.quality.suites.corruptions.kernels import length_scale

Images = NDArray[np.float32]
Rngs = Sequence[np.random.Generator]


def contrast(images: Images, level: int, rngs: Rngs) -> Images:
    """Shrink the distance to each channel's mean to 0.4 … 0.05 of it."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.asarray((images - means) * np.float32([0.4, 0.3, 0.2, 0.1, 0.05][level]) + means, np.float32)


def elastic_transform(images: Images, level: int, rngs: Rngs) -> Images:
    """A random affine map, then random smooth displacements; both in the published multiples of 244 pixels of a
    224-pixel image.

    Smoothing white noise over sigma pixels leaves an amplitude of 1 / sigma: displacements that
    shrink with the image need alpha to shrink with its square.
    """
    alpha, sigma, affine = [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)][
        level
    ]
    scale = length_scale(images)
    height, width = images.shape[1:3]
    third = min(height, width) // 3
    centre = np.array([height, width]) // 2
    corners = centre + np.array([[third, third], [third, -third], [-third, third]])
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    grid = np.stack([y, x, np.ones_like(y)], axis=-1)
    result = np.empty_like(images)
    for i, rng in enumerate(rngs):
        moved = corners + rng.uniform(-1, 1, (3, 2)) * affine * 244 * scale
        back = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), corners, rcond=None)[0]
        noise = rng.uniform(-1, 1, (2, height, width))
        shift = (
            gaussian_filter(noise, (0, sigma * 244 * scale, sigma * 244 * scale), truncate=3) * alpha * 244 * scale**2
        )
        source = np.moveaxis(grid @ back, -1, 0) + shift
        for channel in range(3):
            result[i, ..., channel] = map_coordinates(images[i, ..., channel], source, order=1, mode="mirror")
    return result


def pixelate(images: Images, level: int, rngs: Rngs) -> Images:
    """Shrink by a box filter to 0.6 … 0.25 of the side and enlarge again without smoothing."""
    share = [0.6, 0.5, 0.4, 0.3, 0.25][level]

    def change(image: Image.Image) -> Image.Image:
        small = (max(1, int(image.width * share)), max(1, int(image.height * share)))
        return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)

    return np.stack([_as_float(change(_as_image(image))) for image in images])


def jpeg_compression(images: Images, level: int, rngs: Rngs) -> Images:
    """Through JPEG of quality 25 … 7."""
    result = []
    for image in images:
        file = io.BytesIO()
        _as_image(image).save(file, "JPEG", quality=[25, 18, 15, 10, 7][level])
        result.append(_as_float(Image.open(file).convert("RGB")))
    return np.stack(result)


def _as_image(image: Images) -> Image.Image:
    return Image.fromarray(np.rint(image * 255).astype(np.uint8))


def _as_float(image: Image.Image) -> Images:
    return np.asarray(image, np.float32) / np.float32(255)
