"""Takes an archive in: whatever file someone hands over becomes a private copy of which every byte was checked.

An archive is code, and what TorchServe does with it is decided by its own files: which interpreter runs, which
handler, which program in front of it. So all of it is compared, not only the bundle:

- its entries are those that ``contents.json`` lists with their hashes, none more, none less;
- ``MANIFEST.json`` and the configuration are exactly as ``elude package`` writes them;
- its code is this installation's, or the archive is one that the requirements list by its hash;
- the file as a whole is, byte for byte, what is written of these entries. Java reads a zip from its start and Python
  from its end: what only one of them sees would run without having been checked.

The bytes that are hashed are the bytes that are written: nobody can change the file in between.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from elude.handlers.admission.admission import require_archive
from elude.handlers.admission.requirements import Requirements
from elude.handlers.errors import UsageError
from elude.handlers.settings import Settings
from elude.handlers.torchserve.archives import (
    CONFIG,
    HANDLER,
    MANIFEST,
    ArchiveInfo,
    Source,
    configuration_bytes,
    manifest_bytes,
    read_archive,
    write_archive,
)
from elude.handlers.torchserve.handler import CONTENTS, parse_contents
from elude.handlers.torchserve.run_time_code import run_time_code

PACKAGE_AGAIN = "Package the bundle again with this version: elude package BUNDLE."
_OWN = (CONTENTS, MANIFEST, CONFIG, HANDLER)
_CODE = re.compile(r"elude(/[A-Za-z_][A-Za-z0-9_]*)+\.py")
_DATA = re.compile(r"bundle(/(?!\.\.?(/|$))[^/\\\x00-\x1f\x7f]+)+")
_BLOCK = 2**20


def take_in(path: str | Path, target: Path, requirements: Requirements = Requirements()) -> ArchiveInfo:
    """Write a checked copy of an archive.

    Args:
        path: the archive.
        target: where the copy goes; its folder is private to this process's user.
        requirements: if they list archives, it must be one of them.

    Returns:
        the copy, with the model's name and version.

    Raises:
        UsageError: something in it is not as it should be; names the entry.
        GateError: the requirements list archives, and not this one.
    """
    info = read_archive(path)
    with _opened(info.path) as (file, archive):
        entries = _entries(info.path, archive, os.fstat(file.fileno()).st_size)
        listed = _listed(info.path, archive, entries, requirements)
        _require_own_files(info, archive)
        sources = {name: _source(info.path, archive, entry) for name, entry in entries.items()}
        try:
            written = write_archive(target, sources)
            for name, sha256 in listed.items():
                if written[name] != sha256:
                    raise UsageError(f"{path} is damaged: {name} was changed.", "Copy it again from its source.")
            _require_same(path, file, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return ArchiveInfo(target, info.name, info.version)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], zipfile.ZipFile]]:
    """The file and the zip that it holds: one file handle for both, so that they are the same file."""
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise UsageError(f"{path} is damaged: {error}.", "Copy it again from its source.") from error
        with archive:
            yield file, archive


def _entries(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Name → entry; every one is plain, is listed once, and may be in an archive."""
    entries: dict[str, zipfile.ZipInfo] = {}
    names = archive.namelist()
    if any(name.startswith("handlers/") for name in names):
        raise UsageError(f"{path} was made by an earlier version of elude, whose code lay in handlers/.", PACKAGE_AGAIN)
    for entry in archive.infolist():
        name = entry.orig_filename
        if name not in _OWN and not _CODE.fullmatch(name) and not _DATA.fullmatch(name):
            raise UsageError(f"{path}: {name!r} does not belong in an archive.", PACKAGE_AGAIN)
        if name in entries:
            raise UsageError(f"{path} holds {name} twice.", PACKAGE_AGAIN)
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ~0x800 or entry.comment:
            raise UsageError(f"{path}: {name} is not stored as it should be.", PACKAGE_AGAIN)
        entries[name] = entry
    if sum(entry.file_size for entry in entries.values()) > size:  # they would have to overlap
        raise UsageError(f"{path} is damaged: its entries are larger than the file.", PACKAGE_AGAIN)
    return entries


def _listed(
    path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], requirements: Requirements
) -> dict[str, str]:
    contents = _read(path, archive, CONTENTS)
    try:
        listed = parse_contents(contents)
    except RuntimeError as error:
        raise UsageError(f"{path}: {error}", "Copy it again from its source.") from error
    for name in sorted(entries.keys() ^ {*listed, CONTENTS}):
        wrong = "does not belong to it" if name in entries else "is missing"
        raise UsageError(f"{path} is damaged: {name} {wrong}.", "Copy it again from its source.")
    require_archive(contents, requirements)
    if requirements.archives is None:
        _require_own_code(path, listed)
    return listed


def _require_own_code(path: Path, listed: Mapping[str, str]) -> None:
    """Without a list of archives the only code that is trusted is this installation's."""
    code = {name: sha256 for name, sha256 in listed.items() if name == HANDLER or name.startswith("elude/")}
    expected = {name: hashlib.sha256(source.read_bytes()).hexdigest() for name, source in run_time_code().items()}
    for name in sorted(code.keys() | expected.keys()):
        if code.get(name) != expected.get(name):
            raise UsageError(
                f"{path} holds other code than this version of elude: {name} differs.",
                f"{PACKAGE_AGAIN} Code of another version is served only from a store that admitted it, with --store.",
            )


def _require_own_files(info: ArchiveInfo, archive: zipfile.ZipFile) -> None:
    """TorchServe's manifest and the configuration decide what is run: they are ours to the byte."""
    if _read(info.path, archive, MANIFEST) != manifest_bytes(info.name, info.version):
        raise UsageError(f"{info.path}: {MANIFEST} is not as 'elude package' writes it.", PACKAGE_AGAIN)
    content = _read(info.path, archive, CONFIG)
    if content != configuration_bytes(_settings(content, info.path)):
        raise UsageError(f"{info.path}: {CONFIG} is not as 'elude package' writes it.", PACKAGE_AGAIN)


def read_settings(path: Path) -> tuple[ArchiveInfo, Settings]:
    """Name, version and settings of an archive; nothing else is checked.

    Raises:
        UsageError: it is not an archive, or they cannot be used.
    """
    info = read_archive(path)
    with _opened(info.path) as (_, archive):
        return info, Settings.from_json(_settings(_read(info.path, archive, CONFIG), path))


def _settings(configuration: bytes, path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(configuration)["elude"]
        Settings.from_json(settings)
    except UsageError as error:
        raise UsageError(f"{path}: {CONFIG}: {error.message}", error.remedy) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: {CONFIG} cannot be read: {type(error).__name__}.", PACKAGE_AGAIN) from error
    return settings


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise UsageError(f"{path} is not a model archive: it has no {name}.", PACKAGE_AGAIN) from error
    if entry.compress_type != zipfile.ZIP_STORED:  # a small file could become a huge one
        raise UsageError(f"{path}: {name} is compressed.", PACKAGE_AGAIN)
    return b"".join(_source(path, archive, entry)[1]())


def _source(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Source:
    return entry.file_size, partial(_blocks, path, archive, entry)


def _blocks(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(entry) as stream:
            while block := stream.read(_BLOCK):
                yield block
    except OSError as error:
        raise UsageError(f"{path}: {entry.filename} cannot be read: {error}.", "Copy it again.") from error
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise UsageError(
            f"{path} is damaged: {entry.filename} was changed.", "Copy it again from its source."
        ) from error


def _require_same(path: str | Path, file: IO[bytes], target: Path) -> None:
    """The archive and the copy made of its entries are the same bytes: nothing is hidden between the entries."""
    file.seek(0)
    with target.open("rb") as copy:
        while True:
            block, expected = file.read(_BLOCK), copy.read(_BLOCK)
            if block != expected:
                raise UsageError(f"{path} holds more than its entries, or in another form.", PACKAGE_AGAIN)
            if not block:
                return
