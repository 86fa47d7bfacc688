"""Images by their content: those that can be read, in an order that no name, folder or order of files changes.

An image is known by the sha256 of its encoded bytes. Of more images than wanted each class keeps its share, those
with the smallest hashes, and the result is sorted by hash. So what is made from the images depends on
them alone. All of them are read once for their hashes, and those taken are decoded once more than needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from elude.exporter.images.source import Entry, ImageSource
from elude.exporter.progress import Progress
from elude.handlers.errors import ImageError
from elude.handlers.images.preprocess import Preprocess

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_THREADS = 4
_NAMED = 5


@dataclass(frozen=True)
class Screened:
    """Images that can be read.

    Attributes:
        images: sorted by hash, which each entry carries.
        unreadable: name → reason of those left out.
    """

    images: ImageSource
    unreadable: dict[str, str]

    def note(self) -> str:
        """A sentence on what was left out; empty where nothing was."""
        if not self.unreadable:
            return ""
        names = list(self.unreadable)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (
            f"{len(names)} images of {self.images.name} cannot be read and are left out: "
            f"{', '.join(names[:_NAMED])}{more}; measures.json names them all"
        )


def screen(
    source: ImageSource, preprocess: Preprocess, count: int, *, strict: bool = False, progress: Progress | None = None
) -> Screened:
    """At most ``count`` images that can be read, in canonical order.

    Args:
        source: any images.
        preprocess: of the model; an image that it refuses counts as unreadable.
        count: images at most.
        strict: refuse unreadable images instead of leaving them out.
        progress: called with (steps done, steps).

    Raises:
        ImageError: ``strict`` and some cannot be read (all are named), or none can be (the first ones are named).
    """
    total = len(source) + min(count, len(source))
    seen = 0
    unreadable: dict[str, str] = {}

    def passed(answers: Iterator[tuple[Entry, str]]) -> Iterator[tuple[Entry, str]]:
        nonlocal seen
        for answer in answers:
            seen += 1
            if progress is not None:
                progress(seen, total)
            yield answer

    hashed = []
    for entry, problem in passed(_map(partial(_hashed, source), range(len(source)))):
        if problem:
            unreadable[entry.name] = problem
        else:
            hashed.append(entry)
    chosen = replace(source, entries=tuple(sorted(_share(hashed, count), key=lambda entry: entry.sha256)))
    readable = []
    for entry, problem in passed(_map(partial(_decoded, chosen, preprocess), range(len(chosen)))):
        if problem:
            unreadable[entry.name] = problem
        else:
            readable.append(entry)
    if unreadable and (strict or not readable):
        raise ImageError(
            f"{len(unreadable)} images of {source.name} cannot be read:{_listed(unreadable, all_of_them=strict)}",
            "\nRepair or remove them.",
        )
    return Screened(replace(chosen, entries=tuple(readable)), dict(sorted(unreadable.items())))


def with_hashes(source: ImageSource) -> ImageSource:
    """The same images in the same order, each entry with its hash.

    Raises:
        ImageError: an image cannot be read.
    """
    if all(entry.sha256 for entry in source.entries):
        return source
    entries = []
    for entry, problem in _map(partial(_hashed, source), range(len(source))):
        if problem:
            raise ImageError(f"{entry.name} of {source.name} {problem}.", "Check the file or remove it.")
        entries.append(entry)
    return replace(source, entries=tuple(entries))


def _share(entries: list[Entry], count: int) -> list[Entry]:
    """``count`` of the entries, each class with its share whatever it is called.

    They are the first by (rank of the hash within the class + 1/2) / size of the class.
    """
    if len(entries) <= count:
        return entries
    classes: dict[str | None, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.sha256):
        classes.setdefault(entry.label, []).append(entry)
    ranked = [
        ((rank + 0.5) / len(members), entry.sha256, entry)
        for members in classes.values()
        for rank, entry in enumerate(members)
    ]
    return [entry for _, _, entry in sorted(ranked, key=lambda row: row[:2])[:count]]


def _listed(unreadable: dict[str, str], *, all_of_them: bool) -> str:
    rows = sorted(unreadable.items())
    shown = rows if all_of_them else rows[:_NAMED]
    more = f"\n  and {len(rows) - len(shown)} more" if len(rows) > len(shown) else ""
    return "".join(f"\n  {name}: {reason}" for name, reason in shown) + more


def _hashed(source: ImageSource, index: int) -> tuple[Entry, str]:
    entry = source.entries[index]
    try:
        return replace(entry, sha256=entry.sha256 or hashlib.sha256(source.read(entry)).hexdigest()), ""
    except OSError as error:
        return entry, f"cannot be read: {error.strerror or error}"


def _decoded(source: ImageSource, preprocess: Preprocess, index: int) -> tuple[Entry, str]:
    try:
        source.pixels(index, preprocess)
    except ImageError as error:
        return source.entries[index], error.message
    return source.entries[index], ""


def _map(work: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "screen") as pool:
        yield from pool.map(work, items)
