"""Where the images of a set come from: a folder, a tar, WebDataset shards, or a data set of the Hugging Face Hub."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from elude.exporter.images import Entry, ImageSource, open_images
from elude.exporter.images.hub import HubSource, open_hub
from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def open_source(
    address: str, base: str | Path = ".", *, split: str | None = None, label: str | None = None
) -> ImageSource:
    """Open images.

    Args:
        address: a folder or tar (relative to ``base``); ``wds:shard-{000..003}.tar`` for WebDataset
            shards, whose ``KEY.cls`` files hold the class; ``hf:OWNER/NAME`` or
            ``hf:OWNER/NAME@REVISION`` for the Hub, or ``hf:FOLDER`` for a data set on disk (needs
            the extra ``datasets``).
        base: the folder that paths are relative to.
        split: of a data set of the Hub.
        label: how a file's name tells its class, a regular expression with one group over the path
            inside the source; by default the first folder, which is the class in the ImageNet
            layout.

    Raises:
        UsageError: there is nothing there, or a name does not tell its class.
    """
    if address.startswith("hf:"):
        source: ImageSource = open_hub(address[3:], Path(base), split)
    elif address.startswith("wds:"):
        source = _shards([Path(base, part) for part in expand(address[4:])], address)
    else:
        source = open_images(Path(base, address))
    return source if label is None else relabelled(source, label)


def expand(pattern: str) -> list[str]:
    """``a-{00..02}.tar`` to its three names; the zeros of the first number are kept."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [
        name
        for n in numbers
        for name in expand(pattern[: found.start()] + str(n).zfill(len(found[1])) + pattern[found.end() :])
    ]


def relabelled(source: ImageSource, pattern: str) -> ImageSource:
    """The same images with the class that the group of ``pattern`` finds in their name."""
    if isinstance(source, HubSource):
        raise UsageError(f"{source.name} has its classes in a column, not in names.", "Leave `label` out.")
    compiled = re.compile(pattern)
    entries = []
    for entry in source.entries:
        found = compiled.search(entry.name)
        if found is None:
            raise UsageError(
                f"{entry.name} of {source.name} does not match the label pattern {pattern!r}.", "Correct the pattern."
            )
        entries.append(replace(entry, label=found[1]))
    return replace(source, entries=tuple(entries))


def _shards(paths: Sequence[Path], name: str) -> ImageSource:
    """The shards one after another; each entry is named for its shard too, as keys need be unique within one only."""
    entries: list[Entry] = []
    for path in paths:
        entries += [replace(entry, name=f"{path.stem}/{entry.name}") for entry in open_images(path).entries]
    return ImageSource(name, tuple(entries))


def stem(name: str) -> str:
    """The file's name without folders and suffix: what belongs together in a set and what was made of it."""
    return PurePosixPath(name).stem


def read_lines(path: Path, what: str, parse: Callable[[str], str] = str.strip) -> tuple[str, ...]:
    """The non-empty lines of a text file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        text = io.StringIO(read_plain(path).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} cannot be read from {path}: {error}.", "Check the path.") from error
    return tuple(parse(line) for line in text if line.strip())
