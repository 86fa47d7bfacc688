"""Images of more channels than a picture has: arrays as ``numpy.save`` writes them (``.npy``), channels first or last.

Values of uint8 and uint16 become [0, 1] by division by 255 and 65,535; floating-point values stay as they are, so that
the mean and deviation of the model's preprocessing are in the units of the data. Nothing is unpickled, and no memory
is taken before the file is found to hold exactly what its header says.
"""

from __future__ import annotations

import io
import math
import tokenize
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from elude.handlers.errors import ImageError
from elude.handlers.images.decode import Limits, require_bytes, require_pixels

SUFFIX = ".npy"
_LARGEST: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}
_LONGEST_HEADER = 1024  # NumPy writes 128 bytes
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_HEADER_ERRORS = (  # of NumPy's reader and the tokeniser behind it
    ValueError,
    TypeError,
    KeyError,
    SyntaxError,
    OverflowError,
    RecursionError,
    MemoryError,
    OSError,
    tokenize.TokenError,
)


def is_array(data: bytes) -> bool:
    """Whether bytes are those of a ``.npy`` file."""
    return data.startswith(npy.MAGIC_PREFIX)


def read_array(data: bytes, name: str, channels: int, limits: Limits) -> NDArray[np.float32]:
    """The array of an image.

    Args:
        data: of a ``.npy`` file.
        name: what to call the image in an error.
        channels: those of the model.
        limits: of which bytes and pixels are looked at.

    Returns:
        float32 (height, width, channels).

    Raises:
        ImageError: it is not such a file, of other channels or values, or too large.
    """
    require_bytes(data, name, limits)
    values = _channels_last(_view(data, name, channels), name, channels)
    require_pixels(values.shape[1], values.shape[0], name, limits)
    largest = _LARGEST.get(values.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise ImageError(f"{name} holds values that are not finite numbers in float32.", "Fill them before.")
    return result if largest is None else result / np.float32(largest)


def _view(data: bytes, name: str, channels: int) -> NDArray[Any]:
    """The array in ``data``, not copied."""
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = _HEADERS[npy.read_magic(file)](file, max_header_size=_LONGEST_HEADER)
    except _HEADER_ERRORS as error:
        raise ImageError(
            f"{name} is not a NumPy array.",
            f"The model takes {channels} channels, which no picture has: send the bytes that numpy.save writes.",
        ) from error
    if dtype.kind != "f" and dtype.newbyteorder("=") not in _LARGEST:
        raise ImageError(f"{name} holds {dtype}.", "Convert it to uint8, uint16 or float32.")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ImageError(f"{name} does not hold as many values as its shape {shape} has.", "Is it truncated?")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def _channels_last(values: NDArray[Any], name: str, channels: int) -> NDArray[Any]:
    shape = values.shape
    if len(shape) == 4:
        raise ImageError(f"{name} is a batch of shape {shape}.", "Send its images one by one.")
    first, last = (len(shape) == 3 and shape[axis] == channels for axis in (0, -1))
    if not (first or last) or 0 in shape:
        raise ImageError(
            f"{name} has the shape {shape}; the model takes {channels} channels.",
            f"Give ({channels}, H, W) or (H, W, {channels}).",
        )
    if first and last:
        raise ImageError(f"{name} has the shape {shape}: its channels may be first or last.", "Pad or cut it.")
    return np.moveaxis(values, 0, -1) if first else values
