"""Images of a Hugging Face data set, from the hub or from disk, read with the package ``datasets``; they stay
encoded until needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elude.exporter.images.source import Entry, ImageSource
from elude.handlers.errors import UsageError

_FORM = "Write hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:FOLDER, and :SPLIT behind it if there are several."


@dataclass(frozen=True)
class HubSource(ImageSource):
    """Rows of a data set; an entry's ``offset`` is its row.

    Attributes:
        rows: the data set.
        column: its column of images.
    """

    rows: Any = None
    column: str = "image"

    def read(self, entry: Entry) -> bytes:
        """The encoded bytes of one row."""
        image = self.rows[entry.offset][self.column]
        if image is None:
            raise OSError(f"row {entry.offset} holds no image")
        data: bytes = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        return data

    def fingerprint(self) -> str:
        """Another one when an entry or the data set has changed."""
        return f"{super().fingerprint()} {self.rows._fingerprint}"


def open_hub(address: str, base: Path, split: str | None = None) -> HubSource:
    """Open a data set; its class is the column of class labels, if there is one.

    Args:
        address: ``OWNER/NAME[@REVISION][:SPLIT]``, or a folder: one that ``save_to_disk`` wrote, or
            of Parquet or Arrow files.
        base: the folder that a folder is relative to.
        split: if the address does not name it; needed when there are several.

    Raises:
        UsageError: there is no such data set or split, it has no column of images, or ``datasets`` is not installed.
    """
    try:
        import datasets  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise UsageError(
            f"Reading hf:{address} needs the package datasets.", "Run: pip install 'elude[hub]'"
        ) from error
    name, colon, part = address.rpartition(":")
    if colon and not (base / address).is_dir():
        address, split = name, part
    try:
        rows = _load(address, base)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UsageError(f"The data set hf:{address} cannot be loaded: {error}", _FORM) from error
    if split is None and len(rows) == 1:
        (split,) = rows
    if split not in rows:
        wrong = "has several splits" if split is None else f"has no split {split!r}"
        raise UsageError(f"hf:{address} {wrong}.", f"Write hf:{address}:SPLIT with one of {', '.join(rows)}.")
    return _source(f"hf:{address}:{split}", rows[split])


def _load(address: str, base: Path) -> Any:
    """A mapping of splits."""
    import datasets

    local = base / address
    if (local / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(local))
    if (local / "dataset_info.json").is_file() and (local / "state.json").is_file():
        rows = datasets.load_from_disk(str(local))
        return {str(rows.split or "train"): rows}
    if local.is_dir():
        return datasets.load_dataset(str(local))
    name, _, revision = address.partition("@")
    return datasets.load_dataset(name, revision=revision or None)


def _source(name: str, rows: Any) -> HubSource:
    import datasets

    image = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)), None)
    if image is None:
        raise UsageError(f"{name} has no column of images.", f"Its columns are {', '.join(rows.features)}.")
    label = next((key for key, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)), None)
    classes = [None] * len(rows) if label is None else [_class(rows.features[label], number) for number in rows[label]]
    rows = rows.cast_column(image, datasets.Image(decode=False))
    return HubSource(name, tuple(Entry(f"{i:08}", each, Path(), i) for i, each in enumerate(classes)), rows, image)


def _class(kind: Any, number: int | None) -> str | None:
    """The class's name; None where the row has none, which is -1 or null."""
    return None if number is None or number < 0 else str(kind.names[number])
