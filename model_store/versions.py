"""One version of a store: what it is, the words that name it, and the check of every byte of it against its entry in
the record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from elude.handlers.admission.requirements import Requirements
from elude.handlers.admission.trust import check_signature
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.files import file_sha256
from elude.model_store.admission import require_verdict
from elude.model_store.history import admissions, in_stage
from elude.model_store.places import Place
from elude.model_store.records import SERIES, STAGES, Entry

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Version:
    """One admitted version; ``stages`` are those it is in now, ``location`` its folder's path or URL."""

    name: str
    number: int
    admitted: Entry
    stages: tuple[str, ...]
    location: str

    @property
    def id(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def bundle(self) -> str:
        return f"{self.location}/bundle"

    @property
    def archive(self) -> str | None:
        return f"{self.location}/{self.name}.mar" if self.admitted.archive_sha256 is not None else None


def version_of(entry: Entry, entries: Sequence[Entry], location: str) -> Version:
    """The version that an entry is about."""
    admitted = next(other for other in entries if other.action == "admit" and other.version == entry.version)
    stages = tuple(stage for stage in STAGES if in_stage(entry.series, stage, entries) == entry.version)
    return Version(entry.series, int(entry.version.rpartition("/")[2]), admitted, stages, location)


def admission_of(version: str, entries: Sequence[Entry]) -> Entry:
    """The admission of ``NAME/NUMBER``; UsageError if there is no such version, or it was removed."""
    present = admissions(entries)
    for entry in present:
        if entry.version == version:
            return entry
    known = ", ".join(entry.version for entry in present) or "none"
    raise UsageError(f"The store has no version {version!r}.", f"It has: {known}.")


def verify_version(place: Place, entry: Entry, requirements: Requirements, scratch: Path) -> Bundle:
    """Check every byte of a version where it lies, its verdict and its signature.

    Args:
        entry: its admission, or another entry about it.
        scratch: an empty folder for a copy, where the store is not local.

    Raises:
        BundleError: something was changed; names it.
        GateError: its verdict or signature does not hold.
    """
    return _verify(place.fetch(entry.folder, scratch), place.location(entry.folder), entry, requirements)


def verified_copy(place: Place, entry: Entry, requirements: Requirements, target: Path) -> Path:
    """Copy a version to the new folder ``target`` and check the copy: what was checked is what is used, whatever
    happens to the store meanwhile. Raises as ``verify_version``.
    """
    place.copy(entry.folder, target)
    _verify(target, place.location(entry.folder), entry, requirements)
    return target


def _verify(root: Path, where: str, entry: Entry, requirements: Requirements) -> Bundle:
    restore = "Restore it from a backup."
    # A copy of a link is a link: what was checked through it could be exchanged afterwards.
    for path in (root, *root.iterdir()):
        if path.is_symlink():
            raise BundleError(f"{where}: {path.name} is a link.", restore)
    bundle = Bundle.open(root / "bundle")
    present = (bundle.manifest_sha256, bundle.artefact_sha256, bundle.manifest.files.get("verdict.json"))
    if present != (entry.manifest_sha256, entry.artefact_sha256, entry.verdict_sha256):
        raise BundleError(f"{where} is not the bundle that was admitted.", restore)
    archive = f"{entry.series}.mar"
    expected = {"bundle"} if entry.archive_sha256 is None else {"bundle", archive}
    if (extra := {path.name for path in root.iterdir()} ^ expected) or (
        entry.archive_sha256 is not None and file_sha256(root / archive) != entry.archive_sha256
    ):
        raise BundleError(f"{where}: {', '.join(sorted(extra)) or archive} was changed.", restore)
    if requirements.signature:
        check_signature(bundle, requirements.keys, today=entry.day)
    # A waiver may have ended since: that forbids a promotion, it does not make the stored bytes wrong.
    if require_verdict(bundle, today=entry.day).policy_sha256 != entry.policy_sha256:
        raise BundleError(f"{where} was judged by another policy than the record says.", restore)
    return bundle


def unrecorded(place: Place, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Folders of versions that no entry admits, or that were removed."""
    known = {entry.folder for entry in admissions(entries)}
    folders = [f"versions/{name}/{key}" for name in place.names("versions") for key in place.names(f"versions/{name}")]
    return tuple(folder for folder in folders if folder not in known)


def series_of(model: str) -> str:
    """A name for a series of versions, made from a model's."""
    return re.sub(r"[^a-z0-9._-]+", "-", model.lower()).strip("-._")[:80] or "model"


def require_series(name: str) -> None:
    """UsageError unless it can name a series of versions."""
    if re.fullmatch(SERIES, name) is None:
        raise UsageError(
            f"{name!r} is not a name for a series of versions.", "Use lower-case letters, digits, '.', '_' and '-'."
        )


def require_words(who: str, why: str) -> None:
    """UsageError unless both say something, in characters that a file can hold and a terminal shows."""
    if not who.strip() or not why.strip():
        raise UsageError("Every change of the store needs who makes it and why.", "Give both.")
    for text in (who, why):
        if not "".join(text.split()).isprintable():
            raise UsageError(f"{text[:60]!r} holds control characters.", "Give a text without them.")


def require_stage(stage: str) -> None:
    """UsageError unless it is one of ``STAGES``."""
    if stage not in STAGES:
        raise UsageError(f"There is no stage {stage!r}.", f"Stages: {', '.join(STAGES)}.")


def now() -> str:
    """The time for an entry: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def schema_bytes() -> bytes:
    """The content of ``store.json``."""
    return (json.dumps({"schema_version": SCHEMA_VERSION}) + "\n").encode()
