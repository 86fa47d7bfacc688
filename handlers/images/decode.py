"""From encoded bytes to an RGB image, or an error that names the image.

``decode`` is for a user's own files, ``decode_all`` for the images of a request: there, structure, shape, pixels and
memory of all images are checked before the first is decoded, and time is limited while it is.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from elude.handlers.errors import ImageError
from elude.handlers.images.structure import FORMATS, Structure, read_structure

# What Pillow's decoders raise on damaged or hostile input, as found by fuzzing; all are the image's fault, none ours.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_SHRINKS = (1, 2, 4, 8)  # at which libjpeg can decode, as it inverts the transform of each block at that size
_WORK = 8  # pixels over all scans, in multiples of the pixels that a request may have
_FIELD, _FIELDS = 4096, 256  # bytes that are read at once of a header, and how many such reads take no time
_STRIP = 2**18  # pixels that are converted at once, so that converting needs no second copy of the whole image


@dataclass(frozen=True)
class Limits:
    """What an image may at most be.

    Attributes:
        max_bytes: of the encoded image.
        max_pixels: of its first frame; of all images of a request together.
        max_memory: bytes that decoding one image may take at its peak.
        max_seconds: processor time that decoding one image may take.
        formats: those that are accepted.
    """

    max_bytes: int = 16 * 2**20
    max_pixels: int = 50_000_000
    max_memory: int = 48 * 2**20
    max_seconds: float = 1.0
    formats: tuple[str, ...] = FORMATS


def decode(data: bytes, name: str = "image", limits: Limits = Limits()) -> Image.Image:
    """Decode the first frame as the viewer would show it: EXIF orientation applied, transparency over white.

    For files that their user vouches for: ``max_memory`` and ``max_seconds`` are not looked at.

    Args:
        data: an encoded image in one of ``FORMATS``.
        name: what to call the image in an error.
        limits: see ``Limits``.

    Returns:
        an image of mode RGB. 16-bit values keep their upper 8 bits, as Pillow does for 16-bit colour.

    Raises:
        ImageError: not an image, damaged, truncated, too large, or of values that are not 8 or 16 bits.
    """
    require_bytes(data, name, limits)
    return _decode(io.BytesIO(data), name, limits)


def decode_all(
    images: Sequence[tuple[str, bytes]],
    limits: Limits,
    check_size: Callable[[tuple[int, int], str], None] = lambda size, name: None,
) -> list[Callable[[], Image.Image]]:
    """Check the images of one request together; nothing is decoded before the returned functions are called.

    A JPEG that would take more memory than allowed is decoded at a half, quarter or eighth of its size.

    Args:
        images: names, for errors, and encoded bytes.
        limits: of each image, and of their pixels together.
        check_size: raises if an image of that (width, height) and name cannot be used.

    Returns:
        for each image a function that decodes it, so that a caller need hold one at a time. It raises ImageError.

    Raises:
        ImageError: one of them is not an image, is too large, or they are together.
    """
    structures = []
    for name, data in images:
        require_bytes(data, name, limits)
        structure = read_structure(data, name, limits.formats)
        check_size((structure.width, structure.height), name)
        structures.append(structure)
    _require_work(structures, [name for name, _ in images], limits)
    shrinks = [_shrink(structure, name, limits) for structure, (name, _) in zip(structures, images, strict=True)]
    return [
        lambda structure=structure, name=name, shrink=shrink: _decode(  # type: ignore[misc]
            _Timed(structure.data, name, limits.max_seconds), name, limits, structure.format, shrink
        )
        for structure, (name, _), shrink in zip(structures, images, shrinks, strict=True)
    ]


class _Timed(io.BytesIO):
    """A file that a decoder may read from for a given number of seconds of processor time.

    Pillow's decoders ask for at most 64 KiB at once, and its readers of headers for each field.
    """

    def __init__(self, data: bytes, name: str, seconds: float) -> None:
        super().__init__(data)
        self._name, self._seconds, self._end = name, seconds, time.thread_time() + seconds
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        # The clock costs as much as reading a field, so it is looked at for blocks of pixels, and now and then.
        if (size is None or not 0 <= size < _FIELD or self._reads % _FIELDS == 0) and time.thread_time() > self._end:
            raise ImageError(
                f"{self._name} takes longer than {self._seconds} s to decode.", "Save it anew with an ordinary encoder."
            )
        return super().read(size)


def require_bytes(data: bytes, name: str, limits: Limits) -> None:
    """ImageError if there are no bytes, or more than allowed."""
    if len(data) > limits.max_bytes:
        raise ImageError(f"{name} has {len(data)} bytes; at most {limits.max_bytes} are allowed.")
    if not data:
        raise ImageError(f"{name} is empty.")


def require_pixels(width: int, height: int, name: str, limits: Limits) -> None:
    """ImageError if there are more pixels than allowed."""
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} has {width}×{height} pixels; at most {limits.max_pixels} are allowed.", "Send it smaller."
        )


def require_together(pixels: int, limits: Limits) -> None:
    """ImageError if the images of a request have more pixels together than allowed."""
    if pixels > limits.max_pixels:
        raise ImageError(
            f"The images have {pixels} pixels together; at most {limits.max_pixels} are allowed.", "Send fewer at once."
        )


def _require_work(structures: Sequence[Structure], names: Sequence[str], limits: Limits) -> None:
    for structure, name in zip(structures, names, strict=True):
        require_pixels(structure.width, structure.height, name, limits)
    require_together(sum(structure.pixels for structure in structures), limits)
    work = sum(structure.work for structure in structures)
    if work > _WORK * limits.max_pixels:
        raise ImageError(
            f"The scans of {', '.join(dict.fromkeys(names))} cover {work} pixels; at most "
            f"{_WORK * limits.max_pixels} are allowed.",
            "Save it as a JPEG that is not progressive.",
        )


def _shrink(structure: Structure, name: str, limits: Limits) -> int:
    choices = _SHRINKS if structure.format == "JPEG" else _SHRINKS[:1]
    for shrink in choices:
        if structure.memory(shrink) <= limits.max_memory:
            return shrink
    raise ImageError(
        f"{name} is {structure.width}×{structure.height}, which takes {structure.memory() >> 20} MiB to decode as "
        f"{structure.format}; at most {limits.max_memory >> 20} MiB are allowed.",
        "Send it smaller, or as a JPEG that is not progressive.",
    )


def _decode(file: io.BytesIO, name: str, limits: Limits, kind: str | None = None, shrink: int = 1) -> Image.Image:
    formats = limits.formats if kind is None else (kind,)
    try:
        with Image.open(file, formats=formats) as image:
            require_pixels(*image.size, name, limits)
            if shrink > 1:
                image.draft(None, (image.width // shrink, image.height // shrink))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, name)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image of a known format.", f"Send one of {', '.join(formats)}.") from error
    except _DECODER_ERRORS as error:
        raise ImageError(
            f"{name} cannot be decoded: {type(error).__name__}: {error}.", "Is it damaged or truncated?"
        ) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point values.", "Convert it to 8 bits per channel.")
    convert = _convert
    if image.mode.startswith("I"):
        low, high = image.getextrema()
        if low < 0 or high > 0xFFFF:  # type: ignore[operator]  # a pair of numbers, as there is one band
            raise ImageError(f"{name} holds values outside 16 bits.", "Convert it to 8 bits per channel.")
        convert = _upper_byte
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        convert = _over_white
    return _in_strips(image, convert)


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        return convert(image)
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        result.paste(convert(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
    return result


def _convert(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _upper_byte(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
