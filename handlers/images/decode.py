"""From untrusted bytes to an RGB image, or an error that names the image.

Sizes are checked before pixels are decoded.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from elude.handlers.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
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


@dataclass(frozen=True)
class Limits:
    """What an image may at most be: encoded bytes, and pixels over all of its first frame."""

    max_bytes: int = 16 * 2**20
    max_pixels: int = 50_000_000


def decode(data: bytes, name: str = "image", limits: Limits = Limits()) -> Image.Image:
    """Decode the first frame as the viewer would show it: EXIF orientation applied, transparency over white.

    Args:
        data: an encoded image in one of ``FORMATS``.
        name: what to call the image in an error.
        limits: see ``Limits``.

    Returns:
        an image of mode RGB. 16-bit values keep their upper 8 bits, as Pillow does for 16-bit colour.

    Raises:
        ImageError: not an image, damaged, truncated, too large, or of values that are not 8 or 16 bits.
    """
    if len(data) > limits.max_bytes:
        raise ImageError(f"{name} has {len(data)} bytes; at most {limits.max_bytes} are allowed.")
    if not data:
        raise ImageError(f"{name} is empty.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise ImageError(f"{name} has {width}×{height} pixels; at most {limits.max_pixels} are allowed.")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image, name)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image of a known format.", f"Send one of {', '.join(FORMATS)}.") from error
    except _DECODER_ERRORS as error:
        raise ImageError(
            f"{name} cannot be decoded: {type(error).__name__}: {error}.", "Is it damaged or truncated?"
        ) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point values.", "Convert it to 8 bits per channel.")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ImageError(f"{name} holds values outside 16 bits.", "Convert it to 8 bits per channel.")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
