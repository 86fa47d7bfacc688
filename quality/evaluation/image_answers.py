"""What a model answered to each clean image, kept beside ``quality.json``: which images it gets wrong, how confident it
is, and which answers changed since an earlier release.

The file is safetensors: numbers of all images, names as JSON in bytes, and thumbnails of the most confident mistakes.
Its hash is in ``quality.json`` (``answers_sha256``), so that a verdict on these measurements covers it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from elude.exporter.atlas.thumbnails import TINY
from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import Pixels, picture
from elude.quality.dimensions.quality_json import REPORT, answers_name
from elude.quality.statistics.intervals import probabilities_of
from elude.quality.suites.image_sets import EncodedSet, ImageSet

THUMBNAILS = 300  # at most, of the most confident mistakes
SIDE, WEBP_QUALITY = 96, 70
_ROWS = 1000  # of the outputs whose probabilities are held at once
_IMAGES = 50  # decoded at once


@dataclass(frozen=True)
class ImageAnswers:
    """The answers of one model to the N images of a suite.

    Attributes:
        names: of the images.
        classes: of the model's outputs, for people.
        labels: int32 (N,).
        predicted: int32 (N,).
        confidence: float32 (N,), the probability of the predicted class.
        thumbnails: number of an image to its PNG or WebP.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    thumbnails: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def mistakes(self) -> NDArray[np.int64]:
        """Numbers of the images with a wrong answer, the most confident first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return np.asarray(wrong[np.argsort(-self.confidence[wrong], kind="stable")])

    def to_bytes(self) -> bytes:
        """The file; the same bytes for the same answers."""
        texts = json.dumps({"names": self.names, "classes": self.classes}, ensure_ascii=False)
        pictures = sorted(self.thumbnails.items())
        return bytes(
            safetensors.numpy.save(
                {
                    "labels": self.labels,
                    "predicted": self.predicted,
                    "confidence": self.confidence,
                    "texts": np.frombuffer(texts.encode(), np.uint8),
                    "thumbnail_images": np.array([number for number, _ in pictures], np.int32),
                    "thumbnail_bytes": np.array([len(picture) for _, picture in pictures], np.int32),
                    "thumbnails": np.frombuffer(b"".join(picture for _, picture in pictures), np.uint8),
                }
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageAnswers:
        """Inverse of :meth:`to_bytes`.

        Raises:
            UsageError: the file is damaged.
        """
        try:
            tensors = safetensors.numpy.load(data)
            texts = json.loads(tensors["texts"].tobytes())
            numbers = tensors["labels"], tensors["predicted"], tensors["confidence"]
            answers = cls(tuple(map(str, texts["names"])), tuple(map(str, texts["classes"])), *numbers, _split(tensors))
            answers._check()
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"The answers to single images are damaged: {error!r}.", "Evaluate again.") from error
        return answers

    def _check(self) -> None:
        """ValueError for what does not belong together."""
        images, classes = len(self.names), len(self.classes)
        if any(array.shape != (images,) for array in (self.labels, self.predicted, self.confidence)):
            raise ValueError(f"there are not {images} answers")
        for array in (self.labels, self.predicted):
            if array.dtype != np.int32 or (images and not 0 <= array.min() <= array.max() < classes):
                raise ValueError(f"an answer is not one of {classes} classes")
        if not np.all((self.confidence >= 0) & (self.confidence <= 1)):
            raise ValueError("a confidence is not between 0 and 1")
        if any(not 0 <= number < images for number in self.thumbnails):
            raise ValueError("a thumbnail is of no image")


def image_answers(
    outputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    images: ImageSet,
    preprocess: Preprocess,
    keys: Sequence[str],
    titles: Sequence[str],
) -> ImageAnswers:
    """The answers in ``outputs`` (N, C), with thumbnails of the ``THUMBNAILS`` most confident mistakes.

    Args:
        outputs: of the clean ``images``.
        labels: (N,).
        images: they are decoded again for the thumbnails.
        preprocess: of the model.
        keys: the classes as the images name them.
        titles: the classes for people.
    """
    confidence = np.concatenate(
        [probabilities_of(outputs[i : i + _ROWS]).max(axis=1) for i in range(0, len(outputs), _ROWS)]
    )
    answers = ImageAnswers(
        _names(images),
        tuple(titles),
        labels.astype(np.int32),
        outputs.argmax(axis=1).astype(np.int32),
        np.clip(confidence, 0, 1).astype(np.float32),
    )
    shown = np.sort(answers.mistakes[:THUMBNAILS])
    pixels = (row for batch in images.chosen(shown).batches(preprocess, keys, _IMAGES) for row in batch.pixels)
    thumbnails = {int(number): thumbnail(row) for number, row in zip(shown, pixels, strict=True)}
    return ImageAnswers(
        answers.names, answers.classes, answers.labels, answers.predicted, answers.confidence, thumbnails
    )


def thumbnail(pixels: Pixels) -> bytes:
    """PNG of tiny images (H, W, channels), WebP with a longest side of ``SIDE`` of others."""
    image, stream = picture(pixels), io.BytesIO()
    if max(image.size) <= TINY:
        image.save(stream, "PNG")
    else:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        image.save(stream, "WEBP", quality=WEBP_QUALITY, method=4)
    return stream.getvalue()


def read_answers(path: str | Path, sha256: str | None) -> ImageAnswers | None:
    """The answers beside the report at ``path`` (a ``quality.json``, or a bundle's folder); None where there are none.

    Args:
        path: of the report.
        sha256: what the report says of them, None for a report without any.

    Raises:
        UsageError: the file is damaged, or of other measurements than the report's.
    """
    path = Path(path)
    report = path / REPORT if path.is_dir() else path
    place = report.with_name(answers_name(report.name))
    if sha256 is None or not place.is_file():
        return None
    try:
        data = read_plain(place)
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}.", "Evaluate again, or remove it.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UsageError(f"{place} is of other measurements than {path}.", "Evaluate again, or remove it.")
    return ImageAnswers.from_bytes(data)


def _split(tensors: Mapping[str, NDArray[Any]]) -> dict[int, bytes]:
    data, sizes = tensors["thumbnails"].tobytes(), tensors["thumbnail_bytes"]
    ends = np.cumsum(sizes, dtype=np.int64)
    if len(sizes) != len(tensors["thumbnail_images"]) or (len(ends) and ends[-1] != len(data)) or np.any(sizes < 0):
        raise ValueError("the thumbnails do not add up")
    return {
        int(number): data[end - size : end]
        for number, size, end in zip(tensors["thumbnail_images"], sizes.astype(np.int64), ends, strict=True)
    }


def _names(images: ImageSet) -> tuple[str, ...]:
    """Of files their paths, of others their numbers."""
    if isinstance(images, EncodedSet):
        return tuple(entry.name for entry in images.source.entries)
    return tuple(str(number) for number in range(len(images)))
