"""WebDataset shards: several tars with consecutive numbers, written ``images-{000..009}.tar``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from elude.exporter.images.files import open_files
from elude.exporter.images.source import Entry, ImageSource
from elude.handlers.errors import UsageError

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def open_shards(pattern: str, base: Path) -> ImageSource:
    """The shards one after another; each entry is named for its shard too, as keys need be unique within one only.

    Args:
        pattern: names with ``{FIRST..LAST}``, or one name.
        base: the folder that it is relative to.

    Raises:
        UsageError: a shard is missing, no tar, or without images; or the numbers run backwards.
    """
    entries: list[Entry] = []
    for part in expand(pattern):
        path = base / part
        entries += [replace(entry, name=f"{path.stem}/{entry.name}") for entry in open_files(path).entries]
    return ImageSource(pattern, tuple(entries))


def expand(pattern: str) -> list[str]:
    """``a-{00..02}.tar`` to its three names; the zeros of the first number are kept.

    Raises:
        UsageError: the numbers run backwards.
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    numbers = range(int(found[1]), int(found[2]) + 1)
    if not numbers:
        raise UsageError(
            f"The pattern {pattern!r} names no shard: its numbers run backwards.", "Write the smaller number first."
        )
    return [
        name
        for n in numbers
        for name in expand(pattern[: found.start()] + str(n).zfill(len(found[1])) + pattern[found.end() :])
    ]


def is_pattern(address: str) -> bool:
    """Whether an address names several shards."""
    return _BRACES.search(address) is not None
