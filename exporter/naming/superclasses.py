"""Coarser classes from a table, as a CSV file without a header: a class and one of its superclasses in each line.

A class may have several lines. With few images per class, what a sub-unit follows often has a name only one level up.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from elude.handlers.errors import UsageError


def read_superclasses(path: str | Path, classes: Sequence[str | None]) -> Mapping[str, tuple[str, ...]]:
    """Class to its superclasses.

    Raises:
        UsageError: the file cannot be read, a line is no pair, or it lists none of the ``classes``.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            lines = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(
            f"The superclasses {path} cannot be read: {error}.", "Give a CSV file, class,superclass in each line."
        ) from error
    above: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(lines, start=1):
        if not row:
            continue
        if len(row) != 2 or not all(row):
            raise UsageError(f"Line {number} of {path} is {row}.", "Give a class and one superclass in each line.")
        above[row[0]] = (*above.get(row[0], ()), row[1])
    known = sorted({label for label in classes if label is not None})
    if known and not above.keys() & set(known):
        raise UsageError(f"{path} lists no class of the images.", f"Call them as their folders: {known[0]!r}.")
    return above
