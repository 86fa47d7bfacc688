"""Files, read and written one way everywhere: plain files of a bounded size, read once, written whole or not at all.

A pipe or a device in place of a file would block its reader or never end; a second read of a file may
give other bytes than the first, which were checked.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20  # of a document: settings, policies, records, reports
MAX_DEPTH = 64  # of nested lists and objects in a document
_BLOCK = 2**20


def open_plain(path: Path | str, *, links: bool = True) -> BufferedReader:
    """Open a plain file for reading.

    Args:
        path: the file.
        links: whether the last part of the path may be a symbolic link.

    Raises:
        OSError: it cannot be opened, is a link that is not allowed, or is not a plain file.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a plain file", str(path))
    return os.fdopen(descriptor, "rb")


def read_plain(path: Path | str, limit: int = MAX_BYTES, *, links: bool = True) -> bytes:
    """The content of a plain file of at most ``limit`` bytes; OSError otherwise."""
    with open_plain(path, links=links) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"Larger than {limit} bytes", str(path))
    return content


def file_sha256(path: Path | str) -> str:
    """sha256 of a plain file, as 64 hexadecimal digits."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_plain(source: Path | str, target: Path | str, *, links: bool = False) -> str:
    """Copy a plain file to a new one and give the sha256 of exactly the bytes that were written."""
    digest = hashlib.sha256()
    with open_plain(source, links=links) as reader, open(target, "xb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            writer.write(block)
    return digest.hexdigest()


def write_durably(path: Path | str, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A new empty file beside ``path``, which takes its place when the block ends: whoever reads ``path``, or a crash,
    sees the old file or the whole new one. After an error the new one is removed.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path | str, content: bytes) -> None:
    """Write a file in one step, see ``replacing``, and wait until it is on the disk."""
    with replacing(path) as temporary:
        write_durably(temporary, content)


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON document strictly.

    Of two equal keys one reader takes the first and another the last, so they are refused; so are numbers
    that are not finite, and nesting deeper than ``MAX_DEPTH``, which a recursive reader would fail on.

    Raises:
        ValueError: it is not such a document.
    """
    try:
        value = json.loads(content, object_pairs_hook=_object, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    require_shallow(value)
    return value


def read_json(path: Path | str, limit: int = MAX_BYTES, *, links: bool = True) -> Any:
    """The JSON document in a plain file; OSError if it cannot be read, ValueError if it is not such a document."""
    return parse_json(read_plain(path, limit, links=links))


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document of at most ``MAX_DEPTH`` levels; ValueError if it is not one."""
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    require_shallow(value)
    return value


def require_shallow(value: Any) -> None:
    """ValueError if lists and objects are nested deeper than ``MAX_DEPTH``."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"key {name!r} is there twice")
        content[name] = value
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"
