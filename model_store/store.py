"""The store: a folder of admitted versions. What is not in its record does not exist; what is in it never changes.

Layout::

    store.json                          schema version
    record.jsonl                        every change, each line chained to the one before
    versions/NAME/NUMBER/bundle/        the bundle as admitted
    versions/NAME/NUMBER/NAME.mar       its archive, if one was given
    .lock  .incoming/                   writers' lock; unfinished copies, swept by the next writer

A version is copied to ``.incoming``, moved to its place, and only then entered in the record, each step flushed to disk. A crash before the
last step leaves a folder that no reader sees and the next writer removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from handlers.bundle import MANIFEST, Bundle
from handlers.errors import BundleError, UsageError
from model_store.admission import archive_matches, file_sha256, require_verdict
from model_store.records import GENESIS, Action, Entry, read_record, sync_folder, write_record

SCHEMA_VERSION = 1
STAGES = ("candidate", "production")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Version:
    """One admitted version; ``stages`` are those it is in now."""

    name: str
    number: int
    admitted: Entry
    stages: tuple[str, ...]
    folder: Path

    @property
    def id(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def archive(self) -> Path | None:
        return self.folder / f"{self.name}.mar" if self.admitted.archive_sha256 is not None else None


class Store:
    """A store at ``root``, made on first admission. Safe for many writers on one machine; readers need no lock."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        schema = self.root / "store.json"
        if self.root.exists() and not schema.exists() and any(entry.name != ".lock" for entry in self.root.iterdir()):
            raise UsageError(f"{self.root} is not a store: it has no store.json.", "Name a store, or a new or empty folder.")
        if schema.exists() and schema.read_bytes() != _schema_bytes():
            raise UsageError(f"{schema} is not of schema_version {SCHEMA_VERSION}.", "Use the version of elude that wrote the store.")

    def admit(self, bundle_path: Path | str, archive: Path | None = None, *, who: str, why: str, name: str | None = None) -> Version:
        """Admit a bundle that passed the gate, with its archive.

        The same bundle with the same archive is admitted once: a second time gives the version it already has.

        Args:
            bundle_path: the bundle; verified against its manifest before and after the copy.
            archive: the .mar made of it; must hold the same core files.
            who, why: kept in the record.
            name: of the series of versions; default, made from the model's name.

        Raises:
            GateError: the verdict is missing, failed, expired, or about other bytes.
            BundleError: the bundle or the archive does not match.
            UsageError: ``who``, ``why`` or ``name`` cannot be used.
        """
        _require_words(who, why)
        bundle = Bundle.open(bundle_path)
        series = _series(bundle.manifest.source.model) if name is None else name
        if _NAME.fullmatch(series) is None:
            raise UsageError(f"{series!r} is not a name for a series of versions.", "Use lower-case letters, digits, '.', '_' and '-'.")
        with self._writing() as entries:
            staging = Path(tempfile.mkdtemp(dir=self._incoming()))
            # Judge the copy, not the original: whatever happens to the original meanwhile, the stored bytes are the checked ones.
            shutil.copytree(bundle.root, staging / "bundle", symlinks=True)
            copy = Bundle.open(staging / "bundle")
            verdict = require_verdict(copy)
            archive_sha256 = None
            if archive is not None:
                shutil.copyfile(archive, staging / f"{series}.mar")
                archive_sha256 = archive_matches(staging / f"{series}.mar", copy)
            manifest_sha256 = file_sha256(copy.root / MANIFEST)
            for entry in entries:
                same = (entry.manifest_sha256, entry.archive_sha256) == (manifest_sha256, archive_sha256)
                if entry.action == "admit" and entry.version.rpartition("/")[0] == series and same:
                    shutil.rmtree(staging)
                    return self._version(entry, entries)
            number = 1 + sum(entry.action == "admit" and entry.version.rpartition("/")[0] == series for entry in entries)
            folder = self.root / "versions" / series / str(number)
            shutil.rmtree(folder, ignore_errors=True)  # left by a crash between move and record: never admitted
            _freeze(staging)
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(staging, folder)
            for parent in (folder.parent, folder.parent.parent, self.root):
                sync_folder(parent)
            entry = Entry(
                sequence=len(entries),
                previous=entries[-1].sha256 if entries else GENESIS,
                when=_now(),
                who=who,
                why=why,
                action="admit",
                version=f"{series}/{number}",
                stage=None,
                artefact_sha256=copy.artefact_sha256,
                manifest_sha256=manifest_sha256,
                verdict_sha256=copy.manifest.files["verdict.json"],
                policy_sha256=verdict.policy_sha256,
                archive_sha256=archive_sha256,
            )
            write_record(self.root, [*entries, entry])
            return self._version(entry, [*entries, entry])

    def promote(self, version: str, stage: str = "production", *, who: str, why: str) -> Version:
        """Put a version in a stage; each series has one version a stage. The version is verified, and its verdict must still hold."""
        _require_words(who, why)
        _require_stage(stage)
        with self._writing() as entries:
            return self._move("promote", self._admission(version, entries), stage, entries, who=who, why=why)

    def rollback(self, name: str, stage: str = "production", *, who: str, why: str) -> Version:
        """Put back the version that was in the stage before the present one.

        Raises:
            UsageError: there was none before.
        """
        _require_words(who, why)
        _require_stage(stage)
        with self._writing() as entries:
            # A rollback undoes one promotion: after it, the next one goes one further back.
            history: list[str] = []
            for entry in entries:
                if entry.stage != stage or entry.version.rpartition("/")[0] != name:
                    continue
                if entry.action == "rollback":
                    history.pop()
                else:
                    history.append(entry.version)
            if len(history) < 2:
                raise UsageError(f"{name} has no earlier version in stage {stage}.", "Promote a version instead.")
            return self._move("rollback", self._admission(history[-2], entries), stage, entries, who=who, why=why)

    def list(self) -> tuple[Version, ...]:
        """All versions in the order of their admission."""
        entries = read_record(self.root)
        return tuple(self._version(entry, entries) for entry in entries if entry.action == "admit")

    def show(self, version: str) -> Version:
        """One version, ``NAME/NUMBER``, or the one in a stage, ``NAME/production``.

        Raises:
            UsageError: there is none.
        """
        entries = read_record(self.root)
        name, _, last = version.rpartition("/")
        if last in STAGES:
            current = _in_stage(name, last, entries)
            if current is None:
                raise UsageError(f"{name} has no version in stage {last}.", "Promote one.")
            version = current
        return self._version(self._admission(version, entries), entries)

    def record(self) -> tuple[Entry, ...]:
        """Every change, oldest first, the chain checked."""
        return read_record(self.root)

    def verify(self) -> tuple[Version, ...]:
        """Check the whole record and every byte of every version against it.

        Raises:
            BundleError: names what was changed.
            GateError: a stored verdict does not hold for its bundle.
        """
        versions = self.list()
        for version in versions:
            self._verify(version.admitted)
        known = {(version.name, str(version.number)) for version in versions}
        for folder in sorted((self.root / "versions").glob("*/*")):
            if (folder.parent.name, folder.name) not in known:
                raise BundleError(f"{folder} is not in the record.", "An admission was interrupted, or someone put it there: remove it.")
        return versions

    def _move(self, action: Action, admitted: Entry, stage: str, entries: Sequence[Entry], *, who: str, why: str) -> Version:
        require_verdict(self._verify(admitted))
        change = replace(
            admitted, sequence=len(entries), previous=entries[-1].sha256, when=_now(), who=who, why=why, action=action, stage=stage
        )
        write_record(self.root, [*entries, change])
        return self._version(admitted, [*entries, change])

    def _verify(self, entry: Entry) -> Bundle:
        version = self._version(entry, ())
        if not version.folder.is_dir():
            raise BundleError(f"{version.folder} is missing.", "Restore it from a backup.")
        bundle = Bundle.open(version.bundle)
        found = (file_sha256(bundle.root / MANIFEST), bundle.artefact_sha256, bundle.manifest.files.get("verdict.json"))
        if found != (entry.manifest_sha256, entry.artefact_sha256, entry.verdict_sha256):
            raise BundleError(f"{version.bundle} is not the bundle that was admitted.", "Restore it from a backup.")
        expected = {"bundle"} if version.archive is None else {"bundle", version.archive.name}
        if (extra := {path.name for path in version.folder.iterdir()} ^ expected) or (
            version.archive is not None and file_sha256(version.archive) != entry.archive_sha256
        ):
            raise BundleError(f"{version.folder}: {', '.join(sorted(extra)) or version.archive} was changed.", "Restore it from a backup.")
        # A waiver may have ended since: that forbids a promotion, it does not make the stored bytes wrong.
        require_verdict(bundle, today=datetime.fromisoformat(entry.when).date())
        return bundle

    def _version(self, entry: Entry, entries: Sequence[Entry]) -> Version:
        name, _, number = entry.version.rpartition("/")
        stages = tuple(stage for stage in STAGES if _in_stage(name, stage, entries) == entry.version)
        return Version(name, int(number), entry, stages, self.root / "versions" / name / number)

    def _admission(self, version: str, entries: Sequence[Entry]) -> Entry:
        for entry in entries:
            if entry.action == "admit" and entry.version == version:
                return entry
        known = ", ".join(entry.version for entry in entries if entry.action == "admit") or "none"
        raise UsageError(f"The store has no version {version!r}.", f"It has: {known}.")

    def _incoming(self) -> Path:
        folder = self.root / ".incoming"
        folder.mkdir(exist_ok=True)
        return folder

    @contextmanager
    def _writing(self) -> Iterator[tuple[Entry, ...]]:
        """Hold the writers' lock, which the system frees if the holder dies; sweep what a dead writer left; give the record."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            schema = self.root / "store.json"
            if not schema.exists():
                temporary = self.root / ".store.json.new"
                temporary.write_bytes(_schema_bytes())
                os.replace(temporary, schema)
            shutil.rmtree(self.root / ".incoming", ignore_errors=True)
            try:
                yield read_record(self.root)
            finally:
                shutil.rmtree(self.root / ".incoming", ignore_errors=True)


def _in_stage(name: str, stage: str, entries: Sequence[Entry]) -> str | None:
    moves = [entry.version for entry in entries if entry.stage == stage and entry.version.rpartition("/")[0] == name]
    return moves[-1] if moves else None


def _freeze(folder: Path) -> None:
    """Flush every file and folder to disk and take away the right to write files."""
    for parent, _, files in os.walk(folder, topdown=False):
        for file in files:
            path = Path(parent, file)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            path.chmod(0o444)
        sync_folder(Path(parent))
    folder.chmod(0o755)


def _series(model: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", model.lower()).strip("-._")[:80] or "model"


def _require_words(who: str, why: str) -> None:
    if not who.strip() or not why.strip():
        raise UsageError("Every change of the store needs who makes it and why.", "Give both.")


def _require_stage(stage: str) -> None:
    if stage not in STAGES:
        raise UsageError(f"There is no stage {stage!r}.", f"Stages: {', '.join(STAGES)}.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _schema_bytes() -> bytes:
    return (json.dumps({"schema_version": SCHEMA_VERSION}) + "\n").encode()
