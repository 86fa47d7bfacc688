"""The store: admitted versions in a folder or an object store.

What is not in its record does not exist; what is in it never changes.

Layout::

    store.json                          schema version
    record/00000000.json …              every change, each entry chained to the one before, none ever replaced
    versions/NAME/KEY/bundle/           a bundle as admitted; KEY is made of its bytes
    versions/NAME/KEY/NAME.mar          its archive, if there is one
    .incoming/                          unfinished copies (local stores only)

A version is put in its place first and entered in the record then, by one file that is created only
if nobody else was faster. A crash before that leaves a folder that no reader sees; ``gc`` removes
it. A removal is entered first, and the folder goes then.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.handlers.files import copy_plain, file_sha256
from elude.model_store.admission import contents_sha256, require_verdict
from elude.model_store.history import admissions, in_stage, next_version, removable, removals, version_before
from elude.model_store.places import INCOMING, open_place
from elude.model_store.records import GENESIS, RECORD, STAGES, Action, Entry, append, read_record
from elude.model_store.signing import Signer
from elude.model_store.staging import prepare
from elude.model_store.versions import (
    SCHEMA_VERSION,
    Version,
    admission_of,
    now,
    require_series,
    require_stage,
    require_words,
    schema_bytes,
    series_of,
    unrecorded,
    verified_copy,
    verify_version,
    version_of,
)

_TRIES = 100  # lost races for the next entry before giving up


class Store:
    """A store, made on first admission. Safe for many writers and readers at once, here and on other machines.

    Args:
        url: a folder, or an fsspec URL such as ``s3://bucket/store``.
        requirements: what is asked beyond a passed verdict: signatures (of bundles and of every
            entry of the record), policies.
        must_exist: refuse a place where there is no store yet; a mistyped name would be an empty one.
        options: for the fsspec file system.
    """

    def __init__(
        self,
        url: Path | str,
        requirements: Requirements = Requirements(),
        *,
        must_exist: bool = False,
        **options: Any,
    ) -> None:
        self.place = open_place(url, **options)
        self.requirements = requirements
        self._last: Entry | None = None  # of the longest record that was read
        present = self.place.names("")
        if "store.json" not in present and (must_exist or any(name not in (INCOMING, ".lock") for name in present)):
            remedy = (
                "Name a store; 'elude admit' makes one." if must_exist else "Name a store, or a new or empty folder."
            )
            raise UsageError(f"{url} is not a store: it has no store.json.", remedy)
        if "store.json" in present and self.place.read("store.json") != schema_bytes():
            raise UsageError(
                f"{url}/store.json is not of schema_version {SCHEMA_VERSION}.", "Use the elude that wrote the store."
            )

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
        archive_version: str | None = None,
    ) -> Version:
        """Admit a bundle that passed the gate, with its archive.

        The same bundle with the same archive is admitted once: a second time gives the version it already has.

        Args:
            bundle_path: the bundle; verified against its manifest before and after the copy.
            archive: the .mar made of it; must be, byte for byte, what this version's ``package`` makes of
                it with the same name, version and settings. A signer changes the bundle, so sign before
                packing, or:
            make_archive: make one here, of the bundle as stored.
            archive_version: of the archive that is made; by default the version's number, e.g. ``3.0``,
                so that versions of a series can be served side by side.
            who: kept in the record.
            why: kept in the record.
            name: of the series of versions; default, made from the model's name.
            signer: signs the stored bundle and the entry.

        Raises:
            GateError: the verdict is missing, failed, expired, about other bytes or by another
                policy; a signature is missing.
            BundleError: the bundle or the archive does not match, or the same version was removed at the same time.
            UsageError: ``who``, ``why`` or ``name`` cannot be used.
        """
        require_words(who, why)
        bundle = Bundle.open(bundle_path)
        series = series_of(bundle.manifest.source.model) if name is None else name
        require_series(series)
        with self.place.staging() as folder:
            staged = folder / "version"
            entry = prepare(
                bundle,
                staged,
                series,
                archive=archive,
                make_archive=make_archive,
                archive_version=archive_version,
                entries=self._read(),
                requirements=self.requirements,
                signer=signer,
            )
            entry = replace(entry, who=who, why=why)
            # A damaged record is found before anything is written.
            entry = replace(entry, generation=removals(entry, self._read()))
            self._make()
            self.place.publish(staged, entry.folder)
        return self._append(partial(_admission, entry), signer)

    def promote(
        self, version: str, stage: str = "production", *, who: str, why: str, signer: Signer | None = None
    ) -> Version:
        """Put a version in a stage; each series has one version per stage.

        The version is verified, and its verdict must still hold. Nothing is entered if it is in the stage already.
        """
        require_words(who, why)
        require_stage(stage)

        def forward(entries: Sequence[Entry]) -> Entry:
            return self._move("promote", admission_of(version, entries), stage, who, why, entries)

        return self._append(forward, signer)

    def rollback(
        self, name: str, stage: str = "production", *, who: str, why: str, signer: Signer | None = None
    ) -> Version:
        """Put back the version that was in the stage before the current one.

        Args:
            name: of the series, for one step back from whatever is in the stage; or ``NAME/NUMBER``, the
                version to take out: nothing changes if it is not in the stage, so that a second call is harmless.
            stage: ``candidate`` or ``production``.
            who: kept in the record.
            why: kept in the record.
            signer: signs the entry.

        Raises:
            UsageError: there was none before.
        """
        require_words(who, why)
        require_stage(stage)
        series, slash, number = name.partition("/")
        if slash and not number:  # of a script whose variable was empty: again and again it would go one step back
            raise UsageError(f"{name!r} names no version.", "Give NAME, or NAME/NUMBER.")

        def back(entries: Sequence[Entry]) -> Entry:
            current, before = in_stage(series, stage, entries), version_before(series, stage, entries)
            if number and current is not None and current != admission_of(name, entries).version:
                return admission_of(current, entries)
            if before is None:
                raise UsageError(f"{series} has no earlier version in stage {stage}.", "Promote a version instead.")
            return self._move("rollback", admission_of(before, entries), stage, who, why, entries)

        return self._append(back, signer)

    def list(self) -> tuple[Version, ...]:
        """All versions in the order of their admission."""
        entries = self._read()
        return tuple(self._version(entry, entries) for entry in admissions(entries))

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
        return self._version(admission_of(version, entries), entries)

    def record(self) -> tuple[Entry, ...]:
        """Every change, oldest first, the chain checked."""
        return self._read()

    def fetch(self, version: str, target: Path | str) -> Version:
        """A copy of a version, verified: its bundle and archive in the new folder ``target``, from where it can be
        served.
        """
        shown, place = self.show(version), Path(target)
        if place.exists():
            raise UsageError(f"{target} already exists.", "Choose another place.")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as folder:
            copy = verified_copy(self.place, shown.admitted, self.requirements, Path(folder, "version"))
            os.rename(copy, place)
        return replace(shown, location=str(target))

    def require_admitted(self, archive: Path | str) -> Version:
        """The version that an archive is of; for a server, before it loads a file from anywhere.

        Raises:
            GateError: no version of this store has exactly this archive.
        """
        return self._admitted(archive, file_sha256(archive))

    def _admitted(self, archive: Path | str, sha256: str) -> Version:
        for version in self.list():
            if version.admitted.archive_sha256 == sha256:
                return version
        raise GateError(
            f"{archive} was never admitted to this store.", "Admit its bundle, and serve the archive from the store."
        )

    def requirements_for(self, archives: Sequence[Path | str]) -> Requirements:
        """What a server of these archives must ask: exactly they, with their verdicts, and what the store itself asks.

        Each is read once, into a private copy: what is listed is what was found in the record.

        Raises:
            GateError: one of them was never admitted.
        """
        contents = []
        for archive in archives:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, Path(archive).name)
                self._admitted(archive, copy_plain(archive, copy, links=True))
                contents.append(contents_sha256(copy))
        return replace(self.requirements, verdict=True, archives=tuple(contents))

    def serving_requirements(self, stage: str = "production") -> Requirements:
        """The same for the archives of all versions that are in a stage now; each is verified first."""
        require_stage(stage)
        contents = []
        for version in self.list():
            if stage in version.stages and version.archive is not None:
                with tempfile.TemporaryDirectory() as folder:
                    copy = verified_copy(self.place, version.admitted, self.requirements, Path(folder, "version"))
                    contents.append(contents_sha256(copy / f"{version.name}.mar"))
        return replace(self.requirements, verdict=True, archives=tuple(contents))

    def verify(self) -> tuple[Version, ...]:
        """Check the whole record and every byte of every version against it.

        Raises:
            BundleError: names what was changed.
            GateError: a stored verdict does not hold for its bundle.
        """
        versions = self.list()
        for version in versions:
            with tempfile.TemporaryDirectory() as folder:
                verify_version(self.place, version.admitted, self.requirements, Path(folder))
        if left := unrecorded(self.place, self._read()):
            raise BundleError(
                f"{left[0]} is not in the record.",
                "A change was interrupted, or someone put it there: 'gc' removes it.",
            )
        return versions

    def gc(
        self,
        grace: timedelta = timedelta(days=1),
        *,
        keep: int | None = None,
        who: str = "",
        why: str = "",
        signer: Signer | None = None,
    ) -> tuple[str, ...]:
        """Remove what is not needed, and give the names of the folders that went.

        Args:
            grace: what interrupted admissions left goes after it: a writer at work must not lose its copy.
            keep: also remove versions, but for the last ``keep`` of each series, those in a stage,
                and the one that a rollback of the stage would put back. Each removal is entered in
                the record before its folder goes. None: no version goes.
            who: of the entries, if there are any.
            why: of the entries.
            signer: of the entries.

        Raises:
            UsageError: ``keep`` is negative, or ``who`` or ``why`` is missing.
        """
        if keep is not None:
            require_words(who, why)
            if keep < 0:
                raise UsageError(f"keep is {keep}.", "Give the number of versions to keep of each series, 0 or more.")
            for entry in removable(keep, self._read()):
                self._append(partial(_removal, entry, keep, who, why), signer)
        cutoff, entries = datetime.now(UTC) - grace, self._read()
        removed = {entry.folder for entry in entries if entry.action == "remove"}
        left = [*unrecorded(self.place, entries), *(f"{INCOMING}/{name}" for name in self.place.names(INCOMING))]
        gone = [name for name in left if name in removed or self.place.changed(name) <= cutoff]
        for name in gone:
            self.place.remove(name)
        return tuple(gone)

    def _read(self) -> tuple[Entry, ...]:
        """The record now, which continues what was read before: a server that runs is not taken back by cutting it."""
        known = self._last  # before reading: another thread may read a longer one meanwhile
        entries = read_record(self.place, self.requirements.keys if self.requirements.signature else None)
        if known is not None and entries[known.sequence : known.sequence + 1] != (known,):
            raise BundleError(
                f"{self.place.location(RECORD)} no longer holds entry {known.sequence} as it was read before.",
                "Restore the record; if it was restored from a backup, start this program again.",
            )
        if entries and (self._last is None or entries[-1].sequence > self._last.sequence):
            self._last = entries[-1]
        return entries

    def _append(self, make: Callable[[Sequence[Entry]], Entry], signer: Signer | None) -> Version:
        """Enter what ``make`` gives for the present record; if another writer is faster, ask it again for the new
        one. It gives an entry of the record where nothing is to be changed.
        """
        if self.requirements.signature and (
            signer is None or all(key.key_id != signer.key_id for key in self.requirements.keys)
        ):
            raise GateError(
                "This store's record is signed, and no trusted key signs this change.", "Give the signing key."
            )
        self._make()
        for _ in range(_TRIES):
            entries = self._read()
            change = make(entries)
            if change in entries:
                return self._version(change, entries)
            change = self._next(change, entries).signed(signer)
            try:
                append(self.place, change)
            except FileExistsError:
                continue
            return self._version(change, [*entries, change])
        raise BundleError(
            f"{self.place.location(RECORD)} could not be written: other writers were faster {_TRIES} times.",
            "Try again.",
        )

    def _next(self, change: Entry, entries: Sequence[Entry]) -> Entry:
        """The change as the next entry. A clock that is behind the record's must not date it before its predecessor."""
        if not entries:
            return replace(change, sequence=0, previous=GENESIS)
        last = entries[-1]
        when = change.when if change.instant >= last.instant else last.when
        change = replace(change, sequence=len(entries), previous=last.sha256, when=when)
        counting = [key for key in self.requirements.keys if key.counts(change.day, change.sequence)]
        if self.requirements.signature and not counting:
            raise GateError(f"No trusted key counts on {change.day}, the day of this change.", "Use a newer key.")
        return change

    def _make(self) -> None:
        if "store.json" not in self.place.names(""):
            with suppress(FileExistsError):  # another writer made the same one
                self.place.create("store.json", schema_bytes())

    def _move(self, action: Action, admitted: Entry, stage: str, who: str, why: str, entries: Sequence[Entry]) -> Entry:
        with tempfile.TemporaryDirectory() as folder:
            bundle = verify_version(self.place, admitted, self.requirements, Path(folder, "version"))
            require_verdict(bundle, policies=self.requirements.policies)
        if in_stage(admitted.series, stage, entries) == admitted.version:
            return admitted
        return replace(admitted, when=now(), who=who, why=why, action=action, stage=stage)

    def _version(self, entry: Entry, entries: Sequence[Entry]) -> Version:
        return version_of(entry, entries, self.place.location(entry.folder))


def _admission(entry: Entry, entries: Sequence[Entry]) -> Entry:
    if removals(entry, entries) != entry.generation:  # its folder will go, and another one was not written
        raise BundleError("A version of the same bytes was removed while this one was admitted.", "Admit it again.")
    return next_version(entry, entries)


def _removal(admitted: Entry, keep: int, who: str, why: str, entries: Sequence[Entry]) -> Entry:
    """The entry that removes a version; its admission, which changes nothing, if something holds it by now."""
    if admitted not in removable(keep, entries):
        return admitted
    return replace(admitted, when=now(), who=who, why=why, action="remove")
