"""Images of more channels than a picture has: arrays as ``numpy.save`` (``.npy``) or ``numpy.savez`` (``.npz``, of one
array) writes them, channels first or last, and multi-band TIFF (``elude.handlers.images.bands_tiff``).

Values of uint8 and uint16 become [0, 1] by division by 255 and 65,535; floating-point values stay as they are, so that
the mean and deviation of the model's preprocessing are in the units of the data. Nothing is unpickled, and no memory
is taken before the file is found to hold exactly what its header says: unpacked, an image may have as many bytes as an
encoded one.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from elude.handlers.errors import ImageError
from elude.handlers.images import bands_tiff
from elude.handlers.images.decode import Limits, require_bytes, require_pixels, require_together
from elude.handlers.images.structure import StructureError

SUFFIXES = (".npy", ".npz")
_FORTRAN: Literal["F"] = "F"
_C: Literal["C"] = "C"
_ZIP = b"PK\x03\x04"
_LARGEST: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}
_LONGEST_HEADER = 1024  # NumPy writes 128 bytes
_LONGEST_DIRECTORY = 2048  # of a zip, for one entry
_TOGETHER = 2  # bytes that the images of a request may have unpacked, in multiples of those of one
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
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, struct.error)
_ONE_ARRAY = "Save one array with numpy.savez_compressed(path, array), or with numpy.save."
_AS_NPY = "Convert it: np.save('image.npy', tifffile.imread('image.tif'))."


def is_array(data: bytes) -> bool:
    """Whether bytes are those of a ``.npy`` or ``.npz`` file."""
    return data.startswith((npy.MAGIC_PREFIX, _ZIP))


def read_array(data: bytes, name: str, channels: int, limits: Limits) -> NDArray[np.float32]:
    """The array of one image; see ``read_arrays``."""
    return read_arrays([(name, data)], channels, limits)[0]


def read_arrays(images: Sequence[tuple[str, bytes]], channels: int, limits: Limits) -> list[NDArray[np.float32]]:
    """The arrays of images, all checked before the values of one are read.

    Args:
        images: names, for errors, and the bytes of files.
        channels: those of the model.
        limits: of which bytes, pixels and formats are looked at.

    Returns:
        float32 (height, width, channels) of each.

    Raises:
        ImageError: one is not such a file, of other channels or values, or too large, or they are together.
    """
    stored = [_checked(data, name, channels, limits) for name, data in images]
    require_together(sum(math.prod(array.size) for array in stored), limits)
    if (total := sum(array.nbytes for array in stored)) > _TOGETHER * limits.max_bytes:
        raise ImageError(
            f"The images have {total} bytes together when unpacked; at most {_TOGETHER * limits.max_bytes} are "
            "allowed.",
            "Send fewer at once.",
        )
    return [_scaled(array, name) for array, (name, _) in zip(stored, images, strict=True)]


@dataclass(frozen=True)
class _Stored:
    """An array as its file declares it.

    Attributes:
        axis: which one is the channels'; None: the file does not say.
        nbytes: that reading its values takes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    values: Callable[[], NDArray[Any]]
    axis: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = (size for axis, size in enumerate(self.shape) if axis != (self.axis or 0) % len(self.shape))
        return height, width


def _checked(data: bytes, name: str, channels: int, limits: Limits) -> _Stored:
    """What an image declares, which fits the model and the limits."""
    require_bytes(data, name, limits)
    stored = _opened(data, name, channels, limits)
    if stored.dtype.kind != "f" and stored.dtype.newbyteorder("=") not in _LARGEST:
        raise ImageError(f"{name} holds {stored.dtype}.", "Convert it to uint8, uint16 or float32.")
    stored = replace(stored, axis=_channel_axis(stored, name, channels))
    height, width = stored.size
    require_pixels(width, height, name, limits)
    if stored.nbytes > limits.max_bytes:
        raise ImageError(f"{name} has {stored.nbytes} bytes unpacked; at most {limits.max_bytes} are allowed.")
    return stored


def _scaled(stored: _Stored, name: str) -> NDArray[np.float32]:
    """Its values, channels last."""
    assert stored.axis is not None
    try:
        values = np.moveaxis(stored.values(), stored.axis, -1)
    except StructureError as error:
        raise ImageError(f"{name}: {error}.", _AS_NPY) from error
    largest = _LARGEST.get(values.dtype.newbyteorder("="))
    with np.errstate(over="ignore"):
        result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise ImageError(f"{name} holds values that are not finite numbers in float32.", "Fill them before.")
    return result if largest is None else result / np.float32(largest)


def _opened(data: bytes, name: str, channels: int, limits: Limits) -> _Stored:
    if data.startswith(bands_tiff.SIGNATURES) and "TIFF" in limits.formats:
        return _tiff(data, name)
    return _npy(_unzipped(data, name, limits) if data.startswith(_ZIP) else data, name, channels)


def _tiff(data: bytes, name: str) -> _Stored:
    try:
        pages = bands_tiff.read_pages(data)
    except StructureError as error:
        raise ImageError(f"{name}: {error}.", _AS_NPY) from error
    first, nbytes = pages[0], sum(page.nbytes for page in pages)
    if first.samples > 1:
        return _Stored((first.height, first.width, first.samples), first.dtype, nbytes, lambda: first.read(data), -1)
    shape = (len(pages), first.height, first.width)
    return _Stored(shape, first.dtype, nbytes, lambda: np.stack([page.read(data)[..., 0] for page in pages]))


def _npy(data: bytes, name: str, channels: int) -> _Stored:
    """The array in ``data``, not copied."""
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = _HEADERS[npy.read_magic(file)](file, max_header_size=_LONGEST_HEADER)
    except _HEADER_ERRORS as error:
        raise ImageError(
            f"{name} is not a NumPy array or a TIFF.",
            f"The model takes {channels} channels, which no picture has: send the bytes that numpy.save writes.",
        ) from error
    start, order = file.tell(), _FORTRAN if fortran else _C
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ImageError(f"{name} does not hold as many values as its shape {shape} has.", "Is it truncated?")
    return _Stored(
        shape, dtype, len(data) - start, lambda: np.frombuffer(data, dtype, offset=start).reshape(shape, order=order)
    )


def _unzipped(data: bytes, name: str, limits: Limits) -> bytes:
    """The only file in a zip, which may not be larger than an image that is not zipped."""
    at = data.rfind(b"PK\x05\x06", -22)  # the end record, which NumPy writes without a comment
    if at < 0 or struct.unpack_from("<I", data, at + 12)[0] > _LONGEST_DIRECTORY:
        raise ImageError(f"{name} is not a .npz file of one array.", _ONE_ARRAY)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.namelist()
            if len(members) != 1:
                raise ImageError(f"{name} holds {len(members)} arrays: {', '.join(members)[:200]}.", _ONE_ARRAY)
            with archive.open(members[0]) as member:
                content = member.read(limits.max_bytes + 1)
    except _ZIP_ERRORS as error:
        raise ImageError(f"{name} cannot be unpacked: {error}.", "Is it damaged or truncated?") from error
    if len(content) > limits.max_bytes:
        raise ImageError(f"{name} has more bytes unpacked than the {limits.max_bytes} that are allowed.")
    return content


def _channel_axis(stored: _Stored, name: str, channels: int) -> int:
    shape = stored.shape
    if len(shape) == 4:
        raise ImageError(f"{name} is a batch of shape {shape}.", "Send its images one by one.")
    axes = (0, -1) if stored.axis is None else (stored.axis,)
    fitting = [axis for axis in axes if len(shape) == 3 and shape[axis] == channels]
    if not fitting or 0 in shape:
        raise ImageError(
            f"{name} has the shape {shape}; the model takes {channels} channels.",
            f"Give ({channels}, H, W) or (H, W, {channels}).",
        )
    if len(fitting) > 1:
        raise ImageError(f"{name} has the shape {shape}: its channels may be first or last.", "Pad or cut it.")
    return fitting[0]
