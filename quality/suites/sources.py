"""Where the images of a set come from: a folder, a tar, WebDataset shards, or a data set of the Hugging Face Hub."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from exporter.images import Entry, Example, ImageSource, open_images
from handlers.errors import EvaluationError, UsageError

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Source(Protocol):
    """A fixed sequence of encoded images."""

    @property
    def name(self) -> str: ...
    @property
    def entries(self) -> tuple[Entry, ...]: ...
    @property
    def labels(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Example]: ...
    def __getitem__(self, index: int) -> Example: ...


def open_source(address: str, base: str | Path = ".", *, split: str | None = None, label: str | None = None) -> Source:
    """Open images.

    Args:
        address: a folder or tar (relative to ``base``); ``wds:shard-{000..003}.tar`` for WebDataset shards, whose ``KEY.cls`` files hold
            the class; ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION`` for the Hub, or ``hf:FOLDER`` for a data set on disk (needs the
            extra ``datasets``).
        base: the folder that paths are relative to.
        split: of a data set of the Hub.
        label: how a file's name tells its class, a regular expression with one group over the path inside the source; by default the first
            folder, which is the class in the ImageNet layout.

    Raises:
        UsageError: there is nothing there, or a name does not tell its class.
    """
    if address.startswith("hf:"):
        source: Source = _hub(address[3:], Path(base), split)
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
    return [name for n in numbers for name in expand(pattern[: found.start()] + str(n).zfill(len(found[1])) + pattern[found.end() :])]


def relabelled(source: Source, pattern: str) -> Source:
    """The same images with the class that the group of ``pattern`` finds in their name."""
    if not isinstance(source, ImageSource):
        raise UsageError(f"{source.name} has its classes in a column, not in names.", "Leave `label` out.")
    compiled = re.compile(pattern)
    entries = []
    for entry in source.entries:
        found = compiled.search(entry.name)
        if found is None:
            raise UsageError(f"{entry.name} of {source.name} does not match the label pattern {pattern!r}.", "Correct the pattern.")
        entries.append(replace(entry, label=found[1]))
    return replace(source, entries=tuple(entries))


def _shards(paths: Sequence[Path], name: str) -> ImageSource:
    """The shards one after another; each entry is named for its shard too, as keys need be unique within one only."""
    entries: list[Entry] = []
    for path in paths:
        entries += [replace(entry, name=f"{path.stem}/{entry.name}") for entry in open_images(path).entries]
    return ImageSource(name, tuple(entries))


@dataclass(frozen=True)
class HubSource:
    """Rows of a data set in the order of its files; images stay encoded until they are needed."""

    name: str
    rows: Any
    column: str
    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Example:
        entry, image = self.entries[index], self.rows[index][self.column]
        data = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        return Example(entry.name, data, entry.label)

    @property
    def labels(self) -> list[str]:
        return sorted({entry.label for entry in self.entries if entry.label is not None})


def _hub(address: str, base: Path, split: str | None) -> HubSource:
    try:
        import datasets  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise UsageError(f"Reading hf:{address} needs the package datasets.", "Run: pip install datasets") from error
    name, _, revision = address.partition("@")
    local = base / name
    rows = datasets.load_from_disk(str(local)) if local.is_dir() else datasets.load_dataset(name, revision=revision or None, split=split)
    if isinstance(rows, datasets.DatasetDict):
        if split not in rows:
            raise UsageError(f"hf:{address} has no split {split!r}.", f"Name one of {', '.join(rows)}.")
        rows = rows[split]
    image = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    label = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)), None)
    if image is None or label is None:
        raise EvaluationError(f"hf:{address} has no image column or no class label column.", f"Its columns are {', '.join(rows.features)}.")
    names = rows.features[label].names
    rows = rows.cast_column(image, datasets.Image(decode=False))
    numbers = rows[label]
    entries = tuple(Entry(f"{i:08}", names[number], Path()) for i, number in enumerate(numbers))
    return HubSource(f"hf:{address}", rows, image, entries)


def stem(name: str) -> str:
    """The file's name without folders and suffix: what belongs together in a set and what was made of it."""
    return PurePosixPath(name).stem


def read_lines(path: Path, what: str, parse: Callable[[str], str] = str.strip) -> tuple[str, ...]:
    """The non-empty lines of a text file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        text = io.StringIO(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} cannot be read from {path}: {error}.", "Check the path.") from error
    return tuple(parse(line) for line in text if line.strip())
