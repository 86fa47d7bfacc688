"""Sets of the same images in another form, put into the order of the set they belong to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from elude.exporter.images import Entry
from elude.handlers.errors import UsageError
from elude.quality.suites.image_sets import EncodedSet
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
