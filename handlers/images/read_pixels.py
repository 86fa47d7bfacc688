"""From the bytes of an image to what the model sees of it, whether a picture or an array; and how that is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.handlers.errors import ImageError
from elude.handlers.images.arrays import is_array, read_arrays
from elude.handlers.images.decode import Limits, decode, decode_all
from elude.handlers.images.preprocess import Preprocess

Pixels: TypeAlias = NDArray[np.uint8 | np.float32]
_STRETCH = (2, 98)  # percentiles of a channel that become black and white


def read_pixels(data: bytes, name: str, preprocess: Preprocess, limits: Limits) -> Pixels:
    """One image, resized and cropped: uint8 (H, W, channels) of a picture, float32 of an array.

    For files that their user vouches for, as ``decode``.

    Raises:
        ImageError: it cannot be used; names it.
    """
    if not preprocess.takes_pictures:
        (values,) = _arrays([(name, data)], preprocess, limits)
        return preprocess.bands(values)
    _refuse_array(data, name, preprocess)
    image = decode(data, name, limits)
    preprocess.check_size(image.size, name)
    return preprocess.pixels(image)


def pixel_readers(
    images: Sequence[tuple[str, bytes]], preprocess: Preprocess, limits: Limits
) -> list[Callable[[], Pixels]]:
    """The images of one request, all checked before the first is decoded.

    Args:
        images: names, for errors, and encoded bytes.
        preprocess: of the model.
        limits: of each image, and of their pixels together.

    Returns:
        for each image a function that gives what ``read_pixels`` gives. It raises ImageError.

    Raises:
        ImageError: one of them cannot be used.
    """
    if preprocess.takes_pictures:
        for name, data in images:
            _refuse_array(data, name, preprocess)
        decoders = decode_all(images, limits, preprocess.check_size)
        return [partial(_picture_pixels, decoder, preprocess) for decoder in decoders]
    return [partial(preprocess.bands, values) for values in _arrays(images, preprocess, limits)]


def picture(pixels: Pixels) -> Image.Image:
    """How the pixels of an image are shown.

    Of an array the first three channels are shown as red, green and blue, or the first of two as grey, each stretched
    from its 2nd to its 98th percentile.
    """
    if pixels.dtype == np.uint8:
        values: NDArray[np.uint8] = pixels.astype(np.uint8, copy=False)
    else:
        shown = pixels[..., : 3 if pixels.shape[-1] > 2 else 1]
        low, high = np.percentile(shown, _STRETCH, axis=(0, 1))
        unit = (shown - low) / np.where(high > low, high - low, 1)
        values = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def _picture_pixels(decoder: Callable[[], Image.Image], preprocess: Preprocess) -> NDArray[np.uint8]:
    return preprocess.pixels(decoder())


def _refuse_array(data: bytes, name: str, preprocess: Preprocess) -> None:
    if is_array(data):
        raise ImageError(
            f"{name} is a NumPy array; the model takes pictures of {preprocess.channels} channels.", "Send it as a PNG."
        )


def _arrays(images: Sequence[tuple[str, bytes]], preprocess: Preprocess, limits: Limits) -> list[NDArray[np.float32]]:
    arrays = read_arrays(images, preprocess.channels, limits)
    for values, (name, _) in zip(arrays, images, strict=True):
        preprocess.check_size((values.shape[1], values.shape[0]), name)
    return arrays
