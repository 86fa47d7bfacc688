"""The images that an export is given, or that the embedded model brings along. Loads no torch, so that a mistyped
path is found at once.
"""

from __future__ import annotations

from pathlib import Path

from elude.exporter.images import ImageSource, open_images
from elude.exporter.models.options import EMBEDDED
from elude.handlers.errors import UsageError

_FOLDER = Path(__file__).parents[1] / "embedded"


def open_given(images: str | Path | ImageSource | None, embedded: bool, own: str) -> ImageSource:
    """Open images.

    Args:
        images: an address for ``open_images``, or opened images; None: those of the embedded model.
        embedded: whether they are for the embedded model.
        own: which of its sets, ``probe`` or ``evaluation``.

    Raises:
        UsageError: there are none.
    """
    if isinstance(images, ImageSource):
        return images
    if images is None and not embedded:
        raise UsageError(
            f"No images are given, and only the model {EMBEDDED!r} brings its own.",
            "Give a folder, tar, list or data set, or check the model's name.",
        )
    if not isinstance(images, (str, Path, type(None))):
        raise UsageError(
            f"Images cannot be read from {type(images).__name__}.",
            "Give a folder, tar, list or data set on disk; images in memory can be saved as files: PIL's "
            "image.save('photos/0.png'), or np.save('photos/0.npy', array).",
        )
    return open_images(_FOLDER / f"{own}.tar" if images is None else images)
