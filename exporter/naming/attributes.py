"""Attributes of images from a table, as a CSV file: the first column names the image, every further one is an
attribute.

A cell of 1, yes or true gives the image the column's name; 0, no, false or nothing gives it none;
any other text is itself the attribute, so that a column ``colour`` may say ``red``.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from elude.exporter.naming.labels import Labels
from elude.handlers.errors import UsageError

_YES, _NO = {"1", "yes", "true"}, {"0", "no", "false", ""}


def read_attributes(path: str | Path, images: Sequence[str]) -> Labels:
    """The attributes of the images with these names; images that the table does not list have none.

    Raises:
        UsageError: the file cannot be read, has no attribute, lists an image twice, or lists none of the images.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(
            f"The table {path} cannot be read: {error}.", "Give a CSV file: image, then one column an attribute."
        ) from error
    if len(header) < 2:
        raise UsageError(
            f"The table {path} has no attribute: its header is {header}.",
            "Its first column names the image, others follow.",
        )
    table: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header) or row[0] in table:
            why = (
                f"has {len(row)} cells, the header {len(header)}"
                if len(row) != len(header)
                else f"lists {row[0]!r} again"
            )
            raise UsageError(f"Line {number} of {path} {why}.", "Give each image one line.")
        cells = (
            (name if cell.strip().lower() in _YES else cell.strip())
            for name, cell in zip(header[1:], row[1:], strict=True)
        )
        table[row[0]] = [cell for cell in cells if cell.lower() not in _NO]
    if not any(name in table for name in images):
        raise UsageError(
            f"The table {path} lists none of the images.", f"Name them as their source does, e.g. {images[0]!r}."
        )
    return Labels.of_sets([table.get(name, ()) for name in images])
