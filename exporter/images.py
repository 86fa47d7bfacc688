"""A fixed sequence of images from a folder or a tar, and batches of them as the model's input. Loads no torch.

The same content gives the same sequence, packed or not: entries are sorted by name. Tars are read in place and never unpacked.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from handlers.errors import ImageError, UsageError
from handlers.images import Limits, decode
from handlers.preprocess import Preprocess

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
_LAYOUT = "Give a folder or .tar of images, at best one sub-folder per class."
_LIMITS = Limits(max_bytes=1 << 30, max_pixels=1 << 28)  # the user's own files, not a stranger's request


@dataclass(frozen=True)
class Example:
    """One image: its name within the source, its encoded bytes, and its class if known."""

    name: str
    data: bytes
    label: str | None


@dataclass(frozen=True)
class Entry:
    """Where the bytes of one image are: ``size`` bytes at ``offset`` of ``path``; size -1 is the whole file."""

    name: str
    label: str | None
    path: Path
    offset: int = 0
    size: int = -1


@dataclass(frozen=True)
class ImageSource:
    """Images in a fixed order; reading them twice gives the same.

    Attributes:
        name: the folder or tar it was opened from.
        entries: sorted by name.
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
            with entry.path.open("rb") as file:
                file.seek(entry.offset)
                data = file.read(entry.size)
        except OSError as error:
            raise ImageError(
                f"{entry.name} of {self.name} cannot be read: {error.strerror or error}.", "Check the file or remove it."
            ) from error
        return Example(entry.name, data, entry.label)

    @property
    def labels(self) -> list[str]:
        """The classes that occur, sorted."""
        return sorted({entry.label for entry in self.entries if entry.label is not None})

    def limited(self, count: int) -> ImageSource:
        """At most ``count`` of the images, spread evenly over the sequence, so that each class keeps its part."""
        if len(self) <= count:
            return self
        return replace(self, entries=tuple(self.entries[index * len(self) // count] for index in range(count)))

    def batches(self, preprocess: Preprocess, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The model's input, batch after batch.

        Yields:
            index of the batch's first image, and float32 (at most ``size``, 3, H, W).

        Raises:
            ImageError: an image cannot be read; names it.
        """
        for start in range(0, len(self), size):
            pixels = [self.pixels(index, preprocess) for index in range(start, min(start + size, len(self)))]
            yield start, preprocess.normalise(np.stack(pixels))

    def pixels(self, index: int, preprocess: Preprocess) -> NDArray[np.uint8]:
        """uint8 (H, W, 3): the image as the model sees it, before its values are scaled.

        Raises:
            ImageError: it cannot be read; names it.
        """
        example = self[index]
        name = f"{example.name} of {self.name}"
        image = decode(example.data, name, _LIMITS)
        try:
            return preprocess.pixels(image)
        except ImageError as error:
            raise ImageError(f"{name}: {error.message}", error.remedy) from error


def open_images(path: str | Path) -> ImageSource:
    """Open a folder or a tar.

    In both, the first folder level is the class and files directly at the top have none, unless a file ``KEY.cls`` beside ``KEY.png`` (the
    WebDataset layout) names it. Files that are no images by their suffix, and hidden ones, are passed over.

    Raises:
        UsageError: nothing there, not a plain tar, or no image in it.
    """
    path = Path(path)
    if path.is_dir():
        files = _folder(path)
    elif path.is_file():
        files = _tar(path)
    else:
        raise UsageError(f"There are no images at {path}: no such file or folder.", _LAYOUT)
    classes = {entry.name.removesuffix(".cls"): _read_class(entry) for entry in files if entry.name.endswith(".cls")}
    images = []
    for entry in files:
        name = PurePosixPath(entry.name)
        if name.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in name.parts):
            label = name.parts[0] if len(name.parts) > 1 else None
            images.append(replace(entry, label=classes.get(str(name.with_suffix("")), label)))
    if not images:
        raise UsageError(f"There are no images in {path}: none of its {len(files)} files ends in {', '.join(sorted(SUFFIXES))}.", _LAYOUT)
    return ImageSource(str(path), tuple(sorted(images, key=lambda entry: entry.name)))


def _folder(root: Path) -> list[Entry]:
    entries: list[Entry] = []
    seen: set[str] = set()  # links to folders are followed, but each folder is entered once
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        entries += [Entry(Path(folder, file).relative_to(root).as_posix(), None, Path(folder, file)) for file in files]
    return entries


def _tar(path: Path) -> list[Entry]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar if member.isreg()]
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{path} is not an uncompressed tar: {error}.", _LAYOUT) from error
    return [Entry(str(PurePosixPath(member.name)), None, path, member.offset_data, member.size) for member in members]


def _read_class(entry: Entry) -> str:
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.size).decode("utf-8", "replace").strip()
