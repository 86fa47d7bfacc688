"""The store: admitted versions in a folder or an object store. What is not in its record does not exist; what is in it never changes.

Layout::

    store.json                          schema version
    record/00000000.json …              every change, each entry chained to the one before, none ever replaced
    versions/NAME/KEY/bundle/           a bundle as admitted; KEY is made of its bytes
    versions/NAME/KEY/NAME.mar          its archive, if there is one
    .incoming/                          unfinished copies (local stores only)

A version is put in its place first and entered in the record then, by one file that is created only if nobody else was faster. A crash
before that leaves a folder that no reader sees; ``gc`` removes it.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from handlers.bundle import MANIFEST, Bundle
from handlers.errors import BundleError, GateError, UsageError
from handlers.requirements import Requirements
from handlers.trust import check_signature
from model_store.admission import archive_matches, file_sha256, require_verdict
from model_store.archive import package
from model_store.history import in_stage, next_version, version_before
from model_store.places import INCOMING, open_place
from model_store.records import GENESIS, RECORD, Action, Entry, append, read_record
from model_store.signing import Signer, sign_bundle

SCHEMA_VERSION = 1
STAGES = ("candidate", "production")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_TRIES = 100  # lost races for the next entry before giving up


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


class Store:
    """A store, made on first admission. Safe for many writers and readers at once, here and on other machines.

    Args:
        url: a folder, or an fsspec URL such as ``s3://bucket/store``.
        requirements: what is asked beyond a passed verdict: signatures (of bundles and of every entry of the record), policies.
        options: for the fsspec file system.
    """

    def __init__(self, url: Path | str, requirements: Requirements = Requirements(), **options: Any) -> None:
        self.place = open_place(url, **options)
        self.requirements = requirements
        here = self.place.names("")
        if "store.json" not in here and any(name not in (INCOMING, ".lock") for name in here):
            raise UsageError(f"{url} is not a store: it has no store.json.", "Name a store, or a new or empty folder.")
        if "store.json" in here and self.place.read("store.json") != _schema_bytes():
            raise UsageError(f"{url}/store.json is not of schema_version {SCHEMA_VERSION}.", "Use the elude that wrote the store.")

    def admit(
        self,
        bundle_path: Path | str,
        archive: Path | None = None,
        *,
        who: str,
        why: str,
        name: str | None = None,
        signer: Signer | None = None,
        make_archive: bool = False,
    ) -> Version:
        """Admit a bundle that passed the gate, with its archive.

        The same bundle with the same archive is admitted once: a second time gives the version it already has.

        Args:
            bundle_path: the bundle; verified against its manifest before and after the copy.
            archive: the .mar made of it; must hold the same files. A signer changes the bundle, so sign before packing, or:
            make_archive: make one here, of the bundle as stored.
            who, why: kept in the record.
            name: of the series of versions; default, made from the model's name.
            signer: signs the stored bundle and the entry.

        Raises:
            GateError: the verdict is missing, failed, expired, about other bytes or by another policy; a signature is missing.
            BundleError: the bundle or the archive does not match.
            UsageError: ``who``, ``why`` or ``name`` cannot be used.
        """
        _require_words(who, why)
        bundle = Bundle.open(bundle_path)
        series = _series(bundle.manifest.source.model) if name is None else name
        if _NAME.fullmatch(series) is None:
            raise UsageError(f"{series!r} is not a name for a series of versions.", "Use lower-case letters, digits, '.', '_' and '-'.")
        with self.place.staging() as folder:
            # Judge the copy, not the original: whatever happens to the original meanwhile, the stored bytes are the checked ones.
            staged = folder / "version"
            shutil.copytree(bundle.root, staged / "bundle", symlinks=True)
            copy = Bundle.open(staged / "bundle")
            verdict = require_verdict(copy, policies=self.requirements.policies)
            if signer is not None:
                copy = sign_bundle(copy, verdict, signer)
            if self.requirements.signature:
                check_signature(copy, self.requirements.keys)
            if make_archive and archive is None:
                archive = package(copy, folder / f"{series}.mar", name=series, version="1.0")
            archive_sha256 = None
            if archive is not None:
                shutil.copyfile(archive, staged / f"{series}.mar")
                archive_sha256 = archive_matches(staged / f"{series}.mar", copy)
            entry = Entry(
                sequence=0,
                previous=GENESIS,
                when=_now(),
                who=who,
                why=why,
                action="admit",
                version=f"{series}/0",
                stage=None,
                artefact_sha256=copy.artefact_sha256,
                manifest_sha256=file_sha256(copy.root / MANIFEST),
                verdict_sha256=copy.manifest.files["verdict.json"],
                policy_sha256=verdict.policy_sha256,
                archive_sha256=archive_sha256,
            )
            self._read()  # a damaged record is found before anything is written
            self._make()
            self.place.publish(staged, entry.folder)
        return self._append(lambda entries: next_version(entry, entries), signer)

    def promote(self, version: str, stage: str = "production", *, who: str, why: str, signer: Signer | None = None) -> Version:
        """Put a version in a stage; each series has one version a stage. The version is verified, and its verdict must still hold."""
        _require_words(who, why)
        _require_stage(stage)
        return self._append(lambda entries: self._move("promote", self._admission(version, entries), stage, who, why), signer)

    def rollback(self, name: str, stage: str = "production", *, who: str, why: str, signer: Signer | None = None) -> Version:
        """Put back the version that was in the stage before the present one.

        Raises:
            UsageError: there was none before.
        """
        _require_words(who, why)
        _require_stage(stage)

        def back(entries: Sequence[Entry]) -> Entry:
            before = version_before(name, stage, entries)
            if before is None:
                raise UsageError(f"{name} has no earlier version in stage {stage}.", "Promote a version instead.")
            return self._move("rollback", self._admission(before, entries), stage, who, why)

        return self._append(back, signer)

    def list(self) -> tuple[Version, ...]:
        """All versions in the order of their admission."""
        entries = self._read()
        return tuple(self._version(entry, entries) for entry in entries if entry.action == "admit")

    def show(self, version: str) -> Version:
        """One version, ``NAME/NUMBER``, or the one in a stage, ``NAME/production``.

        Raises:
            UsageError: there is none.
        """
        entries = self._read()
        name, _, last = version.rpartition("/")
        if last in STAGES:
            current = in_stage(name, last, entries)
            if current is None:
                raise UsageError(f"{name} has no version in stage {last}.", "Promote one.")
            version = current
        return self._version(self._admission(version, entries), entries)

    def record(self) -> tuple[Entry, ...]:
        """Every change, oldest first, the chain checked."""
        return self._read()

    def fetch(self, version: str, target: Path | str) -> Version:
        """A copy of a version, verified: its bundle and archive in the new folder ``target``, from where it can be served."""
        found = self.show(version)
        if Path(target).exists():
            raise UsageError(f"{target} already exists.", "Choose another place.")
        with tempfile.TemporaryDirectory() as folder:
            self._verify(found.admitted, Path(folder))
            shutil.copytree(self.place.fetch(found.admitted.folder, Path(folder)), target)
        return replace(found, location=str(target))

    def require_admitted(self, archive: Path | str) -> Version:
        """The version that an archive is of; for a server, before it loads a file from anywhere.

        Raises:
            GateError: no version of this store has exactly this archive.
        """
        sha256 = file_sha256(Path(archive))
        for version in self.list():
            if version.admitted.archive_sha256 == sha256:
                return version
        raise GateError(f"{archive} was never admitted to this store.", "Admit its bundle, and serve the archive from the store.")

    def verify(self) -> tuple[Version, ...]:
        """Check the whole record and every byte of every version against it.

        Raises:
            BundleError: names what was changed.
            GateError: a stored verdict does not hold for its bundle.
        """
        versions = self.list()
        for version in versions:
            with tempfile.TemporaryDirectory() as folder:
                self._verify(version.admitted, Path(folder))
        if left := self._unrecorded(versions):
            raise BundleError(f"{left[0]} is not in the record.", "An admission was interrupted, or someone put it there: 'gc' removes it.")
        return versions

    def gc(self, grace: timedelta = timedelta(days=1)) -> tuple[str, ...]:
        """Remove what interrupted admissions left ``grace`` ago or earlier, as a writer at work must not lose its copy. No version goes."""
        cutoff = datetime.now(UTC) - grace
        left = [*self._unrecorded(self.list()), *(f"{INCOMING}/{name}" for name in self.place.names(INCOMING))]
        gone = [name for name in left if self.place.changed(name) <= cutoff]
        for name in gone:
            self.place.remove(name)
        return tuple(gone)

    def _unrecorded(self, versions: Sequence[Version]) -> tuple[str, ...]:
        known = {version.admitted.folder for version in versions}
        series = self.place.names("versions")
        folders = [f"versions/{name}/{key}" for name in series for key in self.place.names(f"versions/{name}")]
        return tuple(folder for folder in folders if folder not in known)

    def _read(self) -> tuple[Entry, ...]:
        return read_record(self.place, self.requirements.keys if self.requirements.signature else None)

    def _append(self, make: Callable[[Sequence[Entry]], Entry], signer: Signer | None) -> Version:
        """Enter what ``make`` gives for the present record; if another writer is faster, ask it again for the new one."""
        if self.requirements.signature and (signer is None or all(key.key_id != signer.key_id for key in self.requirements.keys)):
            raise GateError("This store's record is signed, and no trusted key signs this change.", "Give the signing key.")
        self._make()
        for _ in range(_TRIES):
            entries = self._read()
            made = make(entries)
            if made in entries:  # admitted before
                return self._version(made, entries)
            made = replace(made, sequence=len(entries), previous=entries[-1].sha256 if entries else GENESIS).signed(signer)
            try:
                append(self.place, made)
            except FileExistsError:
                continue
            return self._version(made, [*entries, made])
        raise BundleError(f"{self.place.location(RECORD)} could not be written: other writers were faster {_TRIES} times.", "Try again.")

    def _make(self) -> None:
        if "store.json" not in self.place.names(""):
            with suppress(FileExistsError):  # another writer made the same one
                self.place.create("store.json", _schema_bytes())

    def _move(self, action: Action, admitted: Entry, stage: str, who: str, why: str) -> Entry:
        with tempfile.TemporaryDirectory() as folder:
            require_verdict(self._verify(admitted, Path(folder)), policies=self.requirements.policies)
        return replace(admitted, when=_now(), who=who, why=why, action=action, stage=stage)

    def _verify(self, entry: Entry, scratch: Path) -> Bundle:
        root = self.place.fetch(entry.folder, scratch)
        bundle = Bundle.open(root / "bundle")
        found = (file_sha256(bundle.root / MANIFEST), bundle.artefact_sha256, bundle.manifest.files.get("verdict.json"))
        where = self.place.location(entry.folder)
        if found != (entry.manifest_sha256, entry.artefact_sha256, entry.verdict_sha256):
            raise BundleError(f"{where} is not the bundle that was admitted.", "Restore it from a backup.")
        archive = f"{entry.series}.mar"
        expected = {"bundle"} if entry.archive_sha256 is None else {"bundle", archive}
        if (extra := {path.name for path in root.iterdir()} ^ expected) or (
            entry.archive_sha256 is not None and file_sha256(root / archive) != entry.archive_sha256
        ):
            raise BundleError(f"{where}: {', '.join(sorted(extra)) or archive} was changed.", "Restore it from a backup.")
        day = datetime.fromisoformat(entry.when).date()
        if self.requirements.signature:
            check_signature(bundle, self.requirements.keys, today=day)
        # A waiver may have ended since: that forbids a promotion, it does not make the stored bytes wrong.
        if require_verdict(bundle, today=day).policy_sha256 != entry.policy_sha256:
            raise BundleError(f"{where} was judged by another policy than the record says.", "Restore it from a backup.")
        return bundle

    def _version(self, entry: Entry, entries: Sequence[Entry]) -> Version:
        admitted = self._admission(entry.version, entries)
        stages = tuple(stage for stage in STAGES if in_stage(entry.series, stage, entries) == entry.version)
        return Version(entry.series, int(entry.version.rpartition("/")[2]), admitted, stages, self.place.location(entry.folder))

    def _admission(self, version: str, entries: Sequence[Entry]) -> Entry:
        for entry in entries:
            if entry.action == "admit" and entry.version == version:
                return entry
        known = ", ".join(entry.version for entry in entries if entry.action == "admit") or "none"
        raise UsageError(f"The store has no version {version!r}.", f"It has: {known}.")


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
