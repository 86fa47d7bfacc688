"""Thumbnails as the pages show them: as WebP, and the smaller the more there are, so that a full atlas stays easy to
pass on.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

TINY = 48  # pixels: smaller thumbnails are kept as they are and shown with sharp pixels
BUDGET = 9_000_000  # bytes that all thumbnails of an atlas may take
_SAMPLE = 64  # thumbnails from which the size of all is told


@dataclass(frozen=True)
class Encoding:
    """Longest side in pixels, and WebP's quality from 0 to 100."""

    side: int
    quality: int


# The first that keeps within the budget is taken. Pages show thumbnails about 70 CSS pixels wide.
LADDER = (
    Encoding(96, 75),
    Encoding(96, 60),
    Encoding(80, 55),
    Encoding(64, 50),
    Encoding(56, 45),
    Encoding(48, 40),
    Encoding(40, 30),
)


def is_tiny(png: bytes) -> bool:
    """Whether a thumbnail is kept as it is."""
    return max(Image.open(io.BytesIO(png)).size) <= TINY


def encoded(png: bytes, encoding: Encoding) -> bytes:
    """A thumbnail as WebP; never enlarged."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((encoding.side, encoding.side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=encoding.quality, method=4)
    return stream.getvalue()


def encoding_for(pngs: Sequence[bytes], budget: int = BUDGET) -> Encoding:
    """The best encoding with which all of them take ``budget`` bytes, told from every n-th; the smallest one if none
    does.

    Args:
        pngs: the thumbnails that are not tiny.
        budget: bytes for all together.
    """
    sample = pngs[:: max(1, len(pngs) // _SAMPLE)]
    for encoding in LADDER:
        if sum(len(encoded(png, encoding)) for png in sample) * len(pngs) <= budget * len(sample):
            return encoding
    return LADDER[-1]
