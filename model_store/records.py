"""The record: every change of a store as one JSON line that holds its own sha256 and that of the line before.

A line that is altered, removed from the middle, doubled or moved is found. Whoever may write to the store can still rewrite the whole
record, or cut its end off together with the versions it names: against that only a copy of the last hash kept elsewhere helps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from handlers.errors import BundleError

RECORD = "record.jsonl"
GENESIS = "0" * 64  # what the first line names as its predecessor
Action = Literal["admit", "promote", "rollback"]


@dataclass(frozen=True)
class Entry:
    """One change.

    Attributes:
        sequence: 0, 1, 2 …
        previous: ``sha256`` of the entry before.
        when: UTC, ISO 8601.
        who, why: given by the caller; the store does not prove them.
        version: ``NAME/NUMBER``.
        stage: of a promotion or rollback.
        manifest_sha256 … archive_sha256: of the files as admitted; of a promotion those of its version.
    """

    sequence: int
    previous: str
    when: str
    who: str
    why: str
    action: Action
    version: str
    stage: str | None
    artefact_sha256: str
    manifest_sha256: str
    verdict_sha256: str
    policy_sha256: str
    archive_sha256: str | None

    def to_line(self) -> bytes:
        """The line, without newline, its own hash included; the same for the same content."""
        return _dump(asdict(self) | {"sha256": self.sha256})

    @property
    def sha256(self) -> str:
        """Hash of all fields above."""
        return hashlib.sha256(_dump(asdict(self))).hexdigest()


def read_record(root: Path) -> tuple[Entry, ...]:
    """All entries, their chain checked.

    Raises:
        BundleError: a line cannot be read, is out of sequence, or does not name the line before; names the line.
    """
    path = root / RECORD
    if not path.exists():
        return ()
    content = path.read_bytes()
    lines = content.split(b"\n")
    if lines.pop() != b"":
        raise _broken(path, len(lines) + 1, "it does not end with a newline")
    entries: list[Entry] = []
    previous = GENESIS
    for number, line in enumerate(lines, 1):
        entry = _parse(path, number, line)
        if entry.sequence != number - 1:
            raise _broken(path, number, f"its sequence is {entry.sequence}")
        if entry.previous != previous:
            raise _broken(path, number, "it does not name the line before")
        previous = entry.sha256
        entries.append(entry)
    return tuple(entries)


def write_record(root: Path, entries: Sequence[Entry]) -> None:
    """Replace the record by ``entries`` in one rename: after a crash there is the old record or the new one, never a torn line."""
    temporary = root / f".{RECORD}.new"
    with temporary.open("wb") as file:
        file.write(b"".join(entry.to_line() + b"\n" for entry in entries))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, root / RECORD)
    sync_folder(root)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(path: Path, number: int, line: bytes) -> Entry:
    try:
        data: Any = json.loads(line)
    except ValueError as error:
        raise _broken(path, number, f"it is not JSON: {error}") from error
    names = {field.name for field in fields(Entry)}
    if not isinstance(data, dict) or set(data) != names | {"sha256"}:
        raise _broken(path, number, "its fields are not those of an entry")
    if type(data["sequence"]) is not int or not all(isinstance(data[n], str) for n in ("previous", "version", "action", "artefact_sha256")):
        raise _broken(path, number, "a field has the wrong type")
    entry = Entry(**{name: data[name] for name in names})
    if entry.to_line() != line:
        raise _broken(path, number, "it does not match its own hash")
    return entry


def _broken(path: Path, number: int, why: str) -> BundleError:
    return BundleError(f"{path}, line {number}, was changed: {why}.", "Restore the record from a backup; do not serve from this store.")
