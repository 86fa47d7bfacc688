"""A list file: one image per line, with its class if it is known."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from elude.exporter.images.source import SUFFIXES, Entry, ImageSource
from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain
from elude.handlers.images.arrays import SUFFIXES as ARRAYS

LIST_SUFFIXES = (".txt", ".lst", ".tsv")
_FORM = (
    "Write PATH, or PATH and class with a tab between them, one image per line; "
    "paths are relative to the list's folder."
)


def open_list(path: Path) -> ImageSource:
    """Open a list; its order is kept.

    A line is a path, or a path, a tab and a class. ``PATH CLASS`` with a space is understood where
    the path ends like an image and has no space after that, as in the lists of ImageNet. Empty
    lines and those that begin with ``#`` are passed over.

    Raises:
        UsageError: it cannot be read, is empty, names a file twice, or one that is not there; says the line.
    """
    try:
        lines = read_plain(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The list {path} cannot be read: {error}.", _FORM) from error
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, label = _parse(line)
        file = path.parent / name
        if not file.is_file():
            raise UsageError(
                f"Line {number} of {path} names {name!r}, which is not a file in {path.parent.resolve()}.", _FORM
            )
        if name in entries:
            raise UsageError(f"Line {number} of {path} names {name!r} again.", "Name each image once.")
        entries[name] = Entry(name, label, file)
    if not entries:
        raise UsageError(f"There are no images in the list {path}.", _FORM)
    return ImageSource(str(path), tuple(entries.values()))


def _parse(line: str) -> tuple[str, str | None]:
    name, tab, label = line.strip().partition("\t")
    if not tab:
        before, space, after = line.strip().rpartition(" ")
        if space and PurePosixPath(before.strip()).suffix.lower() in {*SUFFIXES, *ARRAYS}:
            name, label = before, after
    return name.strip(), label.strip() or None
