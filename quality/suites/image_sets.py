"""Labelled images as the model sees them before normalisation: pixels, resized and cropped once.

Loads no torch.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.exporter.images import ImageSource
from elude.handlers.errors import EvaluationError
from elude.handlers.images.decode import Limits, decode
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import Pixels, read_pixels

_LIMITS = Limits(max_bytes=1 << 30, max_pixels=1 << 28)  # the user's own files, not a stranger's request


@dataclass(frozen=True)
class Batch:
    """Some images of a set.

    Attributes:
        numbers: int64 (N,), their places in the set.
        pixels: uint8 (N, H, W, channels), or float32 of arrays.
        labels: int64 (N,), index of the class among the model's outputs.
    """

    numbers: NDArray[np.int64]
    pixels: Pixels
    labels: NDArray[np.int64]


class ImageSet(Protocol):
    """A fixed sequence of labelled images."""

    def __len__(self) -> int: ...

    def batch(self, preprocess: Preprocess, classes: Sequence[str], start: int, stop: int) -> Batch:
        """The images ``start`` up to ``stop``; ``classes`` are the names of the model's outputs."""
        ...

    def batches(self, preprocess: Preprocess, classes: Sequence[str], size: int) -> Iterator[Batch]:
        """All images in order, at most ``size`` at a time."""
        ...

    def class_of(self) -> list[str]:
        """The name of each image's class, without decoding it."""
        ...

    def chosen(self, numbers: NDArray[np.int64]) -> ImageSet:
        """The images with these places in the set, in their order."""
        ...

    def sha256(self) -> str:
        """Hash of what the set holds."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        ...


class InBatches:
    """``batches`` for a set that has ``batch``."""

    def batches(self: ImageSet, preprocess: Preprocess, classes: Sequence[str], size: int) -> Iterator[Batch]:
        """All images in order, at most ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(preprocess, classes, start, min(start + size, len(self)))


@dataclass(frozen=True)
class EncodedSet(InBatches):
    """Image files with the name of their class.

    Attributes:
        source: of the files.
        ready: the images are cut to a model's input already, as those of ImageNet-C: they are not
            cut again, and not even resized where the size fits.
        as_published: decoded as by torchvision's image folders, for the published score: without the EXIF
            orientation, and transparency dropped.
    """

    source: ImageSource
    ready: bool = False
    as_published: bool = False

    def __post_init__(self) -> None:
        missing = [entry.name for entry in self.source.entries if entry.label is None]
        if missing:
            raise EvaluationError(
                f"{len(missing)} images of {self.source.name} have no class, the first is {missing[0]}.",
                "Put each into a folder named for its class, or let `elude suite init` look for a list of classes.",
            )

    def __len__(self) -> int:
        return len(self.source)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.source.labels)

    def class_of(self) -> list[str]:
        return [str(entry.label) for entry in self.source.entries]

    def chosen(self, numbers: NDArray[np.int64]) -> EncodedSet:
        return replace(self, source=replace(self.source, entries=tuple(self.source.entries[n] for n in numbers)))

    def batch(self, preprocess: Preprocess, classes: Sequence[str], start: int, stop: int) -> Batch:
        index = {name: i for i, name in enumerate(classes)}
        unknown = [name for name in self.classes if name not in index]
        if unknown:
            raise EvaluationError(
                (
                    f"The model has no class {unknown[0]!r} ({len(unknown)} classes of {self.source.name} are "
                    "unknown to it)."
                ),
                f"Name the folders like the model's classes: {', '.join(list(classes)[:5])} …",
            )
        numbers = np.arange(start, stop, dtype=np.int64)
        pixels = np.stack([self.pixels(int(n), preprocess) for n in numbers])
        return Batch(numbers, pixels, np.array([index[str(self.source.entries[n].label)] for n in numbers], np.int64))

    def sha256(self) -> str:
        # nothing is added for images as they usually are, whose hashes policies name
        digest = hashlib.sha256(b"ready\0" * self.ready + b"as published\0" * self.as_published)
        for example in self.source:
            digest.update(f"{example.name}\0{example.label}\0{hashlib.sha256(example.data).hexdigest()}\n".encode())
        return digest.hexdigest()

    def pixels(self, number: int, preprocess: Preprocess) -> Pixels:
        """(H, W, channels) of one image."""
        example = self.source[number]
        name = f"{example.name} of {self.source.name}"
        if not preprocess.takes_pictures:
            fitting = replace(preprocess, crop_pct=1.0) if self.ready else preprocess
            return read_pixels(example.data, name, fitting, _LIMITS)
        image = decode(example.data, name, _LIMITS)
        if self.as_published:
            image = Image.open(io.BytesIO(example.data)).convert("RGB")
        if self.ready:
            if image.size == preprocess.input_size[:0:-1]:
                return np.array(image.convert("RGB"), dtype=np.uint8)
            preprocess = replace(preprocess, crop_pct=1.0)
        preprocess.check_size(image.size, name)
        return preprocess.pixels(image)


@dataclass(frozen=True)
class PixelSet(InBatches):
    """Images in memory that are already resized and cropped.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        labels: int64 (N,), index into ``classes``.
        classes: names of the classes.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def class_of(self) -> list[str]:
        return [self.classes[label] for label in self.labels]

    def chosen(self, numbers: NDArray[np.int64]) -> PixelSet:
        return replace(self, pixels=self.pixels[numbers], labels=self.labels[numbers])

    def batch(self, preprocess: Preprocess, classes: Sequence[str], start: int, stop: int) -> Batch:
        if self.pixels.shape[1:3] != preprocess.input_size[1:]:
            raise EvaluationError(
                f"The images are {self.pixels.shape[1:3]} and the model takes {preprocess.input_size[1:]}.",
                "Resize and crop them first.",
            )
        place = {name: i for i, name in enumerate(classes)}
        unknown = [name for name in self.classes if name not in place]
        if unknown:
            raise EvaluationError(
                f"The model has no class {unknown[0]!r}.", f"Its classes are {', '.join(list(classes)[:5])} …"
            )
        index = np.array([place[name] for name in self.classes], np.int64)
        rows = slice(start, stop)
        return Batch(np.arange(start, stop, dtype=np.int64), self.pixels[rows], index[self.labels[rows]])

    def sha256(self) -> str:
        digest = hashlib.sha256(repr((self.pixels.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()
