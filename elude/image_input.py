"""What a caller may give as an image, and its encoded bytes as a request carries them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from elude.handlers.errors import ImageError
from elude.handlers.files import read_plain

_FORMS = "Give a path, encoded bytes, a PIL image, an array, a tensor, or a list of them."
_AS_IS = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")  # modes that PNG holds without a change


class Tensor(Protocol):
    """The part of ``torch.Tensor`` that is needed, as this package imports no torch."""

    def detach(self) -> Any: ...
    def numpy(self) -> Any: ...


Picture: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[Any] | Tensor
)
Pictures: TypeAlias = list[Any] | tuple[Any, ...] | Iterator[Any]


def are_several(images: Picture | Pictures) -> TypeGuard[Pictures]:
    """Whether these are several images; an open file, which iterates over lines, is one."""
    return isinstance(images, (list, tuple, Iterator)) and not hasattr(images, "read")


def encoded(image: Picture, *, picture: bool = True) -> bytes:
    """The encoded bytes of one image.

    Paths and bytes stay as they are; everything else becomes a PNG, which loses nothing, or an ``.npy`` file.

    Args:
        image: a path; the bytes of a file, or an open one; a PIL image; an array or tensor of shape (H, W), (H, W, C)
            or (C, H, W) with 1, 3 or 4 channels, uint8, or floats in [0, 1] that are rounded to 8 bits.
        picture: whether the model takes pictures; False: it takes arrays of its number of channels, uint8, uint16 or
            floats, which are not rounded.

    Raises:
        ImageError: it is none of these; says what to give instead.
    """
    if isinstance(image, (str, os.PathLike)):
        return _file(os.fspath(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if hasattr(image, "read"):
        return _content(image)
    if isinstance(image, Image.Image):
        return _png(image if image.mode in (*_AS_IS, "F") else image.convert("RGB"))
    if hasattr(image, "detach"):  # a tensor of torch, wherever it lies
        tensor = image.detach().cpu()
        image = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if isinstance(image, np.ndarray) and not picture:
        return _npy(image)
    if isinstance(image, np.ndarray):
        return _png(Image.fromarray(_channels_last(_eight_bits(image))))
    raise ImageError(f"An image cannot be made of {type(image).__name__}.", _hint(image))


def named(image: object, position: int | None) -> str:
    """What to call an image in a message: its path, and its place if it is one of several."""
    place = "" if position is None else f"images[{position}]"
    if isinstance(image, (str, os.PathLike)):
        return f"{place} {os.fspath(image)}".strip()
    return place or "image"


def _file(text: str) -> bytes:
    path = Path(text)
    if "://" in text:
        raise ImageError(f"{text} is an address.", "Fetch the image first and give its bytes or its path.")
    if path.is_dir():
        raise ImageError(f"{text} is a folder.", f"Give its images: sorted(Path({text!r}).glob('*.jpg')).")
    try:
        return read_plain(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"There is no image file {text!r}: {reason}.", "Give the path of an image.") from error


def _content(file: Any) -> bytes:
    """Of an open file, from where it stands."""
    content = file.read()
    if not isinstance(content, bytes):
        raise ImageError("The image file was opened as text.", "Open it with open(path, 'rb'), or give its path.")
    return content


def _png(image: Image.Image) -> bytes:
    if image.mode == "F":
        raise ImageError("The image holds floating-point values.", "Convert it: image.convert('RGB').")
    buffer = io.BytesIO()
    ImageOps.exif_transpose(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _npy(values: NDArray[Any]) -> bytes:
    if values.ndim == 4:
        raise ImageError(f"An array of shape {values.shape} is a batch.", "Give a list of its images: list(batch).")
    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.float32) if values.dtype.kind == "f" else values, allow_pickle=False)
    return buffer.getvalue()


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise ImageError(
            f"The array holds {values.dtype}.",
            "Give uint8 from 0 to 255, e.g. array.astype('uint8'), or floats in [0, 1].",
        )
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not 0 <= low <= high <= 1:  # also false for NaN
        raise ImageError(
            f"The array holds floats from {low:.3g} to {high:.3g}, where 0 to 1 is expected.",
            "Divide values up to 255 by 255; give a normalised image as it was before, as the model's own mean and "
            "deviation are applied here.",
        )
    rounded: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return rounded


def _channels_last(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W), (H, W, 1 | 3 | 4) or (1 | 3 | 4, H, W) → (H, W) or (H, W, 3 | 4)."""
    shape = values.shape
    if values.ndim == 4:
        raise ImageError(f"An array of shape {shape} is a batch.", "Give a list of its images: list(batch).")
    first, last = (values.ndim == 3 and shape[end] in (1, 3, 4) for end in (0, -1))
    if values.ndim not in (2, 3) or 0 in shape or (values.ndim == 3 and not (first or last)):
        raise ImageError(f"An array of shape {shape} is not an image.", "Give (H, W), (H, W, 3) or (3, H, W).")
    if first and last:
        raise ImageError(f"An array of shape {shape} may have its channels first or last.", "Give a PIL image instead.")
    values = np.moveaxis(values, 0, -1) if first else values
    return np.ascontiguousarray(values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values)


def _hint(value: object) -> str:
    if value is None:
        return "A call that should have given an image returned None. " + _FORMS
    if isinstance(value, Sequence) and value and isinstance(value[0], (int, float, list)):
        return "Make an array of it: np.array(values, dtype='uint8')."
    if isinstance(value, Mapping):
        return "Give one of its values. " + _FORMS
    return "Give its images one by one, as they were before they were normalised." if _iterates(value) else _FORMS


def _iterates(value: object) -> bool:
    return isinstance(value, Iterable) or hasattr(value, "__getitem__")
