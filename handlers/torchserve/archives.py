"""The form of an archive: its own files, the rules for names and versions, and how it is written.

An archive is a zip of ``bundle/``, the run-time code in ``elude/``, the handler, ``contents.json`` with the hash of
each file, and the two files below that TorchServe reads. Nothing is compressed, entries are sorted and bear no time:
the same files give the same bytes, so an archive can be compared with what it should be.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elude.handlers.errors import UsageError
from elude.handlers.files import replacing

HANDLER = "elude_handler.py"
CONFIG = "model-config.yaml"
MANIFEST = "MAR-INF/MANIFEST.json"
# A worker that cannot load for that long makes the server's health bad; by default it would stay
# good for five minutes.
RETRY_S = 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_BLOCK = 2**20

Source = tuple[int, Callable[[], Iterator[bytes]]]  # size of an entry, and what gives its content in blocks


@dataclass(frozen=True)
class ArchiveInfo:
    """An archive: its file, and the model's name and version."""

    path: Path
    name: str
    version: str


def require_name(name: str, version: str) -> None:
    """Refuse a name or version that TorchServe does not take, or that would mean something in a path or a
    configuration file.

    Raises:
        UsageError: says which.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"The model's name {name!r} cannot be used.", "Use at most 128 letters, digits, '_', '-' and '.'."
        )
    if not _VERSION.fullmatch(version) or len(version) > 32:
        raise UsageError(f"The version {version!r} cannot be used.", "Use digits and dots, e.g. '1.0'.")


def manifest_bytes(name: str, version: str) -> bytes:
    """TorchServe's ``MANIFEST.json``; it names the handler and the interpreter, so no other is taken."""
    model = {"modelName": name, "modelVersion": version, "handler": HANDLER, "configFile": CONFIG}
    manifest = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    return (json.dumps(manifest, indent=2) + "\n").encode()


def configuration_bytes(settings: Mapping[str, Any]) -> bytes:
    """The model's configuration file, JSON, which is YAML.

    Of TorchServe's own settings only the one that can be given nowhere else; others would silently override those of
    its operator.
    """
    return (json.dumps({"maxRetryTimeoutInSec": RETRY_S, "elude": dict(settings)}, indent=1) + "\n").encode()


def read_archive(path: str | Path) -> ArchiveInfo:
    """Read name and version; nothing else is checked.

    Raises:
        UsageError: no such file, not an archive, or a name or version that cannot be used.
    """
    remedy = "Make one with 'elude package'."
    if not Path(path).is_file():
        raise UsageError(f"{path} is not a model archive: there is no such file.", remedy)
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(MANIFEST)
            if entry.compress_type != zipfile.ZIP_STORED:  # a small file could become a huge one
                raise ValueError(f"{MANIFEST} is compressed")
            model = json.loads(archive.read(entry))["model"]
            name, version = model["modelName"], model["modelVersion"]
            if not isinstance(name, str) or not isinstance(version, str):
                raise TypeError("its name or version is not a text")
    except (OSError, zipfile.BadZipFile, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not a model archive: {error}.", remedy) from error
    try:
        require_name(name, version)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.remedy) from error
    return ArchiveInfo(Path(path).resolve(), name, version)


def require_distinct(archives: Sequence[ArchiveInfo]) -> None:
    """UsageError if two archives have the same name and version: the second would take the first one's place."""
    seen: dict[tuple[str, str], ArchiveInfo] = {}
    for archive in archives:
        other = seen.setdefault((archive.name, archive.version), archive)
        if other is not archive:
            raise UsageError(
                f"{other.path} and {archive.path} are both version {archive.version} of {archive.name}.",
                "Package one of them with another --version or --name.",
            )


def file_source(path: Path) -> Source:
    """An entry with the content of a file."""
    return path.stat().st_size, lambda: _blocks(path)


def bytes_source(content: bytes) -> Source:
    """An entry with this content."""
    return len(content), lambda: iter((content,))


def write_archive(target: Path, entries: Mapping[str, Source]) -> dict[str, str]:
    """Write an archive in one step: a crash leaves the old file or none.

    Args:
        target: an existing file is replaced; its folder is there.
        entries: name to content.

    Returns:
        name to sha256 of what was written.
    """
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        return {name: _write(archive, name, *entries[name]) for name in sorted(entries)}


def _write(archive: zipfile.ZipFile, name: str, size: int, blocks: Callable[[], Iterator[bytes]]) -> str:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # the same bytes on every system
    info.external_attr = 0o644 << 16
    info.file_size = size
    digest = hashlib.sha256()
    with archive.open(info, "w") as place:
        for block in blocks():
            digest.update(block)
            place.write(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
