"""What an archive says of itself: name and version, read without unpacking it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from elude.handlers.errors import UsageError


@dataclass(frozen=True)
class ArchiveInfo:
    """An archive: its file, and the model's name and version."""

    path: Path
    name: str
    version: str

    @property
    def file(self) -> str:
        """A file name that differs between versions of one model."""
        return f"{self.name}-{self.version}.mar"


def read_archive(path: str | Path) -> ArchiveInfo:
    """Read name and version.

    Raises:
        UsageError: no such file, or not an archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            model = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
            return ArchiveInfo(Path(path).resolve(), str(model["modelName"]), str(model["modelVersion"]))
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not a model archive: {error}.", "Make one with 'elude package'.") from error


def check_archive(info: ArchiveInfo) -> None:
    """Compare every file of an archive with its checksum before TorchServe unpacks it, whose own message does not
    name the file.

    Raises:
        UsageError: a file is damaged; names it.
    """
    try:
        with zipfile.ZipFile(info.path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{info.path} is damaged: {error}.", "Copy it again from its source.") from error
    if damaged is not None:
        raise UsageError(f"{info.path} is damaged: {damaged} was changed.", "Copy it again from its source.")
