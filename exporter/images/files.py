"""Images of a folder or a plain tar.

The same content gives the same sequence, packed or not; tars are read in place, never unpacked.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from elude.exporter.images.source import SUFFIXES, Entry, ImageSource
from elude.handlers.errors import UsageError
from elude.handlers.images.arrays import SUFFIXES as ARRAYS

LAYOUT = "Give a folder or .tar of images, ideally one sub-folder per class."


def open_files(path: Path) -> ImageSource:
    """Open a folder or a tar.

    In both, the first folder level is the class and files directly at the top have none, unless a
    file ``KEY.cls`` beside ``KEY.png`` (the WebDataset layout) names it. Files that are no images
    by their suffix, and hidden ones, are passed over. Arrays (``.npy``, ``.npz``) are the images where there are no
    pictures.

    Raises:
        UsageError: nothing there, not a plain tar, or no image in it.
    """
    if path.is_dir():
        files = _folder(path)
    elif path.is_file():
        files = _tar(path)
    else:
        raise UsageError(f"There are no images at {path}: no such file or folder.", LAYOUT)
    classes = {entry.name.removesuffix(".cls"): _read_class(entry) for entry in files if entry.name.endswith(".cls")}
    images = _ending(files, SUFFIXES) or _ending(files, ARRAYS)
    if not images:
        endings = ", ".join([*sorted(SUFFIXES), *ARRAYS])
        raise UsageError(f"There are no images in {path}: none of its {len(files)} files ends in {endings}.", LAYOUT)
    labelled = [replace(entry, label=_label(PurePosixPath(entry.name), classes)) for entry in images]
    return ImageSource(str(path), tuple(sorted(labelled, key=lambda entry: entry.name)))


def _ending(files: list[Entry], suffixes: Collection[str]) -> list[Entry]:
    """Those with one of the suffixes that are not hidden."""
    names = [(PurePosixPath(entry.name), entry) for entry in files]
    return [
        entry
        for name, entry in names
        if name.suffix.lower() in suffixes and not any(part.startswith(".") for part in name.parts)
    ]


def _label(name: PurePosixPath, classes: Mapping[str, str]) -> str | None:
    return classes.get(str(name.with_suffix("")), name.parts[0] if len(name.parts) > 1 else None)


def _folder(root: Path) -> list[Entry]:
    entries: list[Entry] = []
    seen: set[str] = set()  # links to folders are followed, but each folder is entered once
    for folder, folders, files in os.walk(root, followlinks=True):
        folders.sort()
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        entries += [Entry(Path(folder, file).relative_to(root).as_posix(), None, Path(folder, file)) for file in files]
    return entries


def _tar(path: Path) -> list[Entry]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = [member for member in tar if member.isreg()]
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{path} is not an uncompressed tar: {error}.", LAYOUT) from error
    return [Entry(str(PurePosixPath(member.name)), None, path, member.offset_data, member.size) for member in members]


def _read_class(entry: Entry) -> str:
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        return file.read(entry.size).decode("utf-8", "replace").strip()
