"""Sets of the same images in another form, put into the order of the set they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elude.exporter.images import Entry, ImageSource
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.suites.image_sets import Batch, EncodedSet, InBatches
from elude.quality.suites.sources import stem

_FOREGROUND = re.compile(r"n\d{8}_\d+")
Key = Callable[[Entry], tuple[str | None, str]]


def same_name(entry: Entry) -> tuple[str | None, str]:
    """Class and name: what an image and its corrupted forms share."""
    return entry.label, stem(entry.name)


def same_object(entry: Entry) -> tuple[str | None, str]:
    """Class and foreground: ImageNet-9 names a composed image for its foreground and then for its background, so the
    pairs of mixed-same and mixed-rand share only the first ImageNet name. Other names are compared whole.
    """
    foreground = _FOREGROUND.search(stem(entry.name))
    return entry.label, foreground[0] if foreground else stem(entry.name)


def aligned(images: EncodedSet, reference: EncodedSet, key: Key = same_name) -> EncodedSet:
    """``images`` in the order of ``reference``; those that it lacks are left out.

    Raises:
        UsageError: a key occurs twice, or an image of the reference has no partner.
    """
    place: dict[tuple[str | None, str], Entry] = {}
    for entry in images.source.entries:
        if place.setdefault(key(entry), entry) is not entry:
            raise UsageError(
                f"{images.source.name} holds {entry.name} and {place[key(entry)].name}, which are of the same image.",
                "Such sets are compared in pairs: leave one out.",
            )
    missing = [entry.name for entry in reference.source.entries if key(entry) not in place]
    if missing:
        raise UsageError(
            f"{images.source.name} does not hold the images of {reference.source.name} under the same names: "
            f"{len(missing)} are missing, the first is {missing[0]}.",
            "Such sets are compared in pairs: give the set that was made from these images.",
        )
    entries = tuple(place[key(entry)] for entry in reference.source.entries)
    return (
        images if entries == images.source.entries else replace(images, source=replace(images.source, entries=entries))
    )


@dataclass(frozen=True)
class OtherForm(InBatches):
    """The images of a set in another form, ``FOLDER/<class>/<name><suffix>``, looked up when they are needed: the 75
    sets of ImageNet-C have 3.75 million files, whose names alone would take two gigabytes.

    Attributes:
        folder: of the other form.
        reference: the set whose classes, names and order it has.
        suffix: of the files, with its dot.
        ready: see :class:`EncodedSet`.
        as_published: see :class:`EncodedSet`.
    """

    folder: Path
    reference: EncodedSet
    suffix: str
    ready: bool = True
    as_published: bool = False

    @classmethod
    def of(cls, folder: Path, reference: EncodedSet) -> OtherForm | None:
        """None if the folder does not hold each image of the reference in its class's folder, with one suffix."""
        names: dict[str, set[str]] = {}
        for label, name in map(same_name, reference.source.entries):
            names.setdefault(str(label), set()).add(name)
        suffixes: set[str] = set()
        for label, expected in names.items():
            if not (folder / label).is_dir():
                return None
            there = dict(os.path.splitext(name) for name in os.listdir(folder / label))
            if not expected <= there.keys():
                return None
            suffixes |= {there[name] for name in expected}
        return cls(folder, reference, suffixes.pop()) if len(suffixes) == 1 else None

    def __len__(self) -> int:
        return len(self.reference)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.reference.classes

    def class_of(self) -> list[str]:
        return self.reference.class_of()

    def chosen(self, numbers: NDArray[np.int64]) -> OtherForm:
        return replace(self, reference=self.reference.chosen(numbers))

    def batch(self, preprocess: Preprocess, classes: Sequence[str], start: int, stop: int) -> Batch:
        batch = self._encoded(start, stop).batch(preprocess, classes, 0, stop - start)
        return replace(batch, numbers=batch.numbers + start)

    def sha256(self) -> str:
        return self._encoded(0, len(self)).sha256()

    def _encoded(self, start: int, stop: int) -> EncodedSet:
        names = [
            f"{label}/{name}{self.suffix}" for label, name in map(same_name, self.reference.source.entries[start:stop])
        ]
        entries = tuple(Entry(name, name.partition("/")[0], self.folder / name) for name in names)
        return EncodedSet(ImageSource(str(self.folder), entries), self.ready, self.as_published)
