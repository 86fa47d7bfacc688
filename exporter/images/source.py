"""A fixed sequence of encoded images, and batches of them as the model's input, decoded while the model works."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import ImageError
from elude.handlers.images.decode import Limits
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import Pixels, read_pixels

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
_LIMITS = Limits(max_bytes=1 << 30, max_pixels=1 << 28)  # the user's own files, not a stranger's request
_DECODERS = 4  # threads; Pillow lets go of the interpreter while it decodes and resizes


@dataclass(frozen=True)
class Example:
    """One image: its name within the source, its encoded bytes, and its class if known."""

    name: str
    data: bytes
    label: str | None


@dataclass(frozen=True)
class Entry:
    """Where the bytes of one image are: ``size`` bytes at ``offset`` of ``path``; size -1 is the whole file.

    ``sha256`` is of those bytes, where it is known.
    """

    name: str
    label: str | None
    path: Path
    offset: int = 0
    size: int = -1
    sha256: str = ""


@dataclass(frozen=True)
class ImageSource:
    """Images in a fixed order; reading them twice gives the same.

    Attributes:
        name: what it was opened from.
        entries: of a folder or tar sorted by name, of a list as listed, of a data set as its rows.
    """

    name: str
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Example:
        entry = self.entries[index]
        try:
            data = self.read(entry)
        except OSError as error:
            raise ImageError(
                f"{entry.name} of {self.name} cannot be read: {error.strerror or error}.",
                "Check the file or remove it.",
            ) from error
        return Example(entry.name, data, entry.label)

    def read(self, entry: Entry) -> bytes:
        """The encoded bytes of one entry; raises OSError."""
        with entry.path.open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)

    @property
    def labels(self) -> list[str]:
        """The classes that occur, sorted."""
        return sorted({entry.label for entry in self.entries if entry.label is not None})

    def fingerprint(self) -> str:
        """Another one when an entry or a file has changed: names, classes and places, and each file's size and time
        of change.
        """
        digest = hashlib.sha256(repr(self.entries).encode())
        for path in sorted({entry.path for entry in self.entries if entry.path.is_file()}):
            state = path.stat()
            digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def limited(self, count: int) -> ImageSource:
        """At most ``count`` of the images, spread evenly over the sequence, so that each class keeps its part."""
        if len(self) <= count:
            return self
        return replace(self, entries=tuple(self.entries[index * len(self) // count] for index in range(count)))

    def batches(
        self, preprocess: Preprocess, size: int, *, first: int = 0
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The model's input, batch after batch. Threads decode the next batch while the caller works on this one.

        Memory: one batch as float32, and at most two as they were decoded.

        Args:
            preprocess: of the model.
            size: images per batch.
            first: the image to begin with.

        Yields:
            index of the batch's first image, and float32 (at most ``size``, channels, H, W).

        Raises:
            ImageError: an image cannot be read; names it.
        """
        pool = ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1), "decode")

        def begin(start: int) -> list[Future[Pixels]]:
            return [pool.submit(self.pixels, index, preprocess) for index in range(start, min(start + size, len(self)))]

        try:
            coming = begin(first)
            for start in range(first, len(self), size):
                now, coming = coming, begin(start + size)
                yield start, preprocess.normalise(np.stack([future.result() for future in now]))
        finally:
            pool.shutdown(cancel_futures=True)

    def pixels(self, index: int, preprocess: Preprocess) -> Pixels:
        """(H, W, channels): the image as the model sees it, before its values are scaled.

        Raises:
            ImageError: it cannot be read; names it.
        """
        example = self[index]
        return read_pixels(example.data, f"{example.name} of {self.name}", preprocess, _LIMITS)
