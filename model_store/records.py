"""The record: every change of a store as one JSON file that holds its own sha256 and that of the one before.

An entry that is altered, removed from the middle, doubled or moved, or dated before the one before it, is
found. Whoever may write to the store can still write a whole new record, or cut its end off: against the
first, entries are signed; against the second, keep the last hash elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, date, datetime
from typing import Any, Literal, get_args

from elude.handlers.admission.trust import TrustedKey, verify
from elude.handlers.errors import BundleError
from elude.handlers.files import parse_json
from elude.model_store.places import Place
from elude.model_store.signing import Signer

RECORD = "record"
GENESIS = "0" * 64  # what the first entry names as its predecessor
Action = Literal["admit", "promote", "rollback", "remove"]
STAGES = ("candidate", "production")
SERIES = r"[a-z0-9][a-z0-9._-]{0,79}"  # names of series of versions; they become folders
_VERSION = re.compile(SERIES + r"/[1-9]\d{0,8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOVES = ("promote", "rollback")
_TEXTS = (
    "previous",
    "when",
    "who",
    "why",
    "version",
    "action",
    "artefact_sha256",
    "manifest_sha256",
    "verdict_sha256",
    "policy_sha256",
)


@dataclass(frozen=True)
class Entry:
    """One change.

    Attributes:
        sequence: 0, 1, 2 …
        previous: ``sha256`` of the entry before.
        when: UTC, ISO 8601; never before the entry before.
        who, why: given by the caller; only a signature proves a key.
        version: ``NAME/NUMBER``.
        stage: of a promotion or rollback.
        manifest_sha256 … archive_sha256: of the files as admitted; of another change those of its
        version. The manifest hashes the bundle. generation: how often the same bytes were admitted
        and removed before. key_id, signature: of the key that signed all other fields, None if
        unsigned.
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
    generation: int = 0
    key_id: str | None = None
    signature: str | None = None

    @property
    def series(self) -> str:
        return self.version.rpartition("/")[0]

    @property
    def number(self) -> int:
        return int(self.version.rpartition("/")[2])

    @property
    def folder(self) -> str:
        """Where the version lies.

        Named by its bytes, so that two writers never get in each other's way; once removed, never
        used again.
        """
        key = hashlib.sha256(
            f"{self.manifest_sha256}{self.archive_sha256}{self.generation or ''}".encode()
        ).hexdigest()[:16]
        return f"versions/{self.series}/{key}"

    @property
    def sha256(self) -> str:
        """Hash of all fields above."""
        return hashlib.sha256(_dump(asdict(self))).hexdigest()

    def to_bytes(self) -> bytes:
        """The file, its own hash included; the same for the same content."""
        return _dump(asdict(self) | {"sha256": self.sha256}) + b"\n"

    def signed(self, signer: Signer | None) -> Entry:
        """The entry with a signature of all else."""
        plain = replace(self, key_id=None if signer is None else signer.key_id, signature=None)
        if signer is None:
            return plain
        return replace(plain, signature=base64.b64encode(signer.sign(_dump(asdict(plain)))).decode())

    def signed_by(self, keys: Sequence[TrustedKey]) -> bool:
        """Whether one of ``keys`` signed this entry, on a day and at a place in the record at which it counted."""
        if self.signature is None:
            return False
        message = _dump(asdict(replace(self, signature=None)))
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except ValueError:  # not base64: no signature
            return False
        counting = [key for key in keys if key.key_id == self.key_id and key.counts(self.day, self.sequence)]
        return any(verify(key.public_key, signature, message) for key in counting)

    @property
    def day(self) -> date:
        """Of ``when``, UTC."""
        return self.instant.date()

    @property
    def instant(self) -> datetime:
        """``when``; ValueError if it is not an instant of UTC."""
        instant = datetime.fromisoformat(self.when)
        if instant.tzinfo is None:
            raise ValueError("it has no time zone")
        return instant.astimezone(UTC)


def read_record(place: Place, keys: Sequence[TrustedKey] | None = None) -> tuple[Entry, ...]:
    """All entries, their chain checked; with ``keys`` also that each is signed by one of them.

    Raises:
        BundleError: an entry is missing, cannot be read, does not name the one before, or is not signed; names it.
    """
    entries: list[Entry] = []
    previous = GENESIS
    for number, name in enumerate(place.names(RECORD)):
        where = place.location(f"{RECORD}/{name}")
        if name != entry_name(number):
            raise _broken(where, f"{entry_name(number)} should be here")
        try:
            content = place.read(f"{RECORD}/{name}")
        except OSError as error:
            raise _broken(where, f"it cannot be read: {error.strerror or error}") from error
        entry = _parse(where, content)
        if entry.sequence != number:
            raise _broken(where, f"its sequence is {entry.sequence}")
        if entry.previous != previous:
            raise _broken(where, "it does not name the entry before")
        if entries and entry.instant < entries[-1].instant:
            raise _broken(where, "it is dated before the entry before")
        if keys is not None and not entry.signed_by(keys):
            raise _broken(where, "it is not signed by a trusted key")
        previous = entry.sha256
        entries.append(entry)
    return tuple(entries)


def append(place: Place, entry: Entry) -> None:
    """Add an entry in one step; FileExistsError if another writer was first."""
    place.create(f"{RECORD}/{entry_name(entry.sequence)}", entry.to_bytes())


def entry_name(sequence: int) -> str:
    """Name of an entry's file; names sort as the entries do."""
    return f"{sequence:08d}.json"


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _parse(where: str, content: bytes) -> Entry:
    try:
        data: Any = parse_json(content)
    except ValueError as error:
        raise _broken(where, f"it is not JSON: {error}") from error
    names = {field.name for field in fields(Entry)}
    if not isinstance(data, dict) or set(data) != names | {"sha256"}:
        raise _broken(where, "its fields are not those of an entry")
    optional = all(
        data[name] is None or isinstance(data[name], str) for name in ("stage", "archive_sha256", "key_id", "signature")
    )
    numbers = all(type(data[name]) is int for name in ("sequence", "generation"))
    if not numbers or not optional or not all(isinstance(data[name], str) for name in _TEXTS):
        raise _broken(where, "a field has the wrong type")
    entry = Entry(**{name: data[name] for name in names})
    if problem := _problem(entry):
        raise _broken(where, problem)
    if entry.to_bytes() != content:
        raise _broken(where, "it does not match its own hash")
    return entry


def _problem(entry: Entry) -> str:
    """What no elude would have written; empty if there is nothing."""
    hashes = [entry.previous, entry.artefact_sha256, entry.manifest_sha256, entry.verdict_sha256, entry.policy_sha256]
    hashes += [] if entry.archive_sha256 is None else [entry.archive_sha256]
    if not all(_SHA256.fullmatch(value) for value in hashes):
        return "a hash is not of sha256"
    if _VERSION.fullmatch(entry.version) is None:
        return f"{entry.version!r} is not a version"
    if entry.action not in get_args(Action):
        return f"{entry.action!r} is not a change"
    if (entry.stage in STAGES) != (entry.action in _MOVES) or (entry.stage is not None) != (entry.stage in STAGES):
        return f"{entry.stage!r} is not the stage of a change {entry.action!r}"
    try:
        entry.instant  # noqa: B018  # read for its errors
    except (ValueError, OverflowError):
        return f"{entry.when!r} is not an instant"
    return ""


def _broken(where: str, why: str) -> BundleError:
    return BundleError(
        f"{where} was changed: {why}.", "Restore the record from a backup; do not serve from this store."
    )
