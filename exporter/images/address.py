"""One way to name images, whatever holds them."""

from __future__ import annotations

from pathlib import Path

from elude.exporter.images.files import open_files
from elude.exporter.images.hub import open_hub
from elude.exporter.images.listed import LIST_SUFFIXES, open_list
from elude.exporter.images.shards import is_pattern, open_shards
from elude.exporter.images.source import ImageSource


def open_images(address: str | Path, base: str | Path = ".", *, split: str | None = None) -> ImageSource:
    """Open images.

    Args:
        address: one of

            - a folder, or an uncompressed tar: the first folder level is the class; ``KEY.cls``
              beside an image names it too
            - ``images-{000..009}.tar``, with ``wds:`` before it or not: WebDataset shards
            - a list (``.txt``, ``.lst``, ``.tsv``): one path a line, and the class behind a tab if it is known
            - ``hf:OWNER/NAME[@REVISION][:SPLIT]`` or ``hf:FOLDER[:SPLIT]``: a Hugging Face data set
              (needs the extra ``hub``)
        base: the folder that paths are relative to.
        split: of a Hugging Face data set whose address names none.

    Raises:
        UsageError: there is nothing there, or not what the address says.
    """
    text, base = str(address), Path(base)
    if text.startswith("hf:"):
        return open_hub(text.removeprefix("hf:"), base, split)
    if text.startswith("wds:") or is_pattern(text):
        return open_shards(text.removeprefix("wds:"), base)
    path = base / text
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return open_list(path)
    return open_files(path)
