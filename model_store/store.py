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

import shutil
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
from elude.model_store.admission import contents_sha256, file_sha256, require_verdict
from elude.model_store.history import admissions, in_stage, next_version, removable, removals, version_before
from elude.model_store.places import INCOMING, open_place
from elude.model_store.records import GENESIS, RECORD, Action, Entry, append, read_record
from elude.model_store.signing import Signer
from elude.model_store.staging import prepare
from elude.model_store.versions import (
    SCHEMA_VERSION,
    STAGES,
    Version,
    admission_of,
    now,
    require_series,
    require_stage,
    require_words,
    schema_bytes,
    series_of,
    unrecorded,
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
        options: for the fsspec file system.
    """

    def __init__(self, url: Path | str, requirements: Requirements = Requirements(), **options: Any) -> None:
        self.place = open_place(url, **options)
        self.requirements = requirements
        here = self.place.names("")
        if "store.json" not in here and any(name not in (INCOMING, ".lock") for name in here):
            raise UsageError(f"{url} is not a store: it has no store.json.", "Name a store, or a new or empty folder.")
        if "store.json" in here and self.place.read("store.json") != schema_bytes():
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
    ) -> Version:
        """Admit a bundle that passed the gate, with its archive.

        The same bundle with the same archive is admitted once: a second time gives the version it already has.

        Args:
            bundle_path: the bundle; verified against its manifest before and after the copy.
            archive: the .mar made of it; must hold the same files. A signer changes the bundle, so
                sign before packing, or:
            make_archive: make one here, of the bundle as stored.
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
        """Put a version in a stage; each series has one version a stage.

        The version is verified, and its verdict must still hold.
        """
        require_words(who, why)
        require_stage(stage)
        return self._append(
            lambda entries: self._move("promote", admission_of(version, entries), stage, who, why), signer
        )

    def rollback(
        self, name: str, stage: str = "production", *, who: str, why: str, signer: Signer | None = None
    ) -> Version:
        """Put back the version that was in the stage before the present one.

        Raises:
            UsageError: there was none before.
        """
        require_words(who, why)
        require_stage(stage)

        def back(entries: Sequence[Entry]) -> Entry:
            before = version_before(name, stage, entries)
            if before is None:
                raise UsageError(f"{name} has no earlier version in stage {stage}.", "Promote a version instead.")
            return self._move("rollback", admission_of(before, entries), stage, who, why)

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
        found = self.show(version)
        if Path(target).exists():
            raise UsageError(f"{target} already exists.", "Choose another place.")
        with tempfile.TemporaryDirectory() as folder:
            verify_version(self.place, found.admitted, self.requirements, Path(folder))
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
        raise GateError(
            f"{archive} was never admitted to this store.", "Admit its bundle, and serve the archive from the store."
        )

    def requirements_for(self, archives: Sequence[Path | str]) -> Requirements:
        """What a server of these archives must ask: exactly they, with their verdicts, and what the store itself asks.

        Raises:
            GateError: one of them was never admitted.
        """
        for archive in archives:
            self.require_admitted(archive)
        return replace(
            self.requirements, verdict=True, archives=tuple(contents_sha256(Path(archive)) for archive in archives)
        )

    def serving_requirements(self, stage: str = "production") -> Requirements:
        """The same for the archives of all versions that are in a stage now; each is verified first."""
        require_stage(stage)
        archives = []
        for version in self.list():
            if stage in version.stages and version.archive is not None:
                with tempfile.TemporaryDirectory() as folder:
                    verify_version(self.place, version.admitted, self.requirements, Path(folder))
                    archives.append(
                        contents_sha256(self.place.fetch(version.admitted.folder, Path(folder)) / f"{version.name}.mar")
                    )
        return replace(self.requirements, verdict=True, archives=tuple(archives))

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
        return read_record(self.place, self.requirements.keys if self.requirements.signature else None)

    def _append(self, make: Callable[[Sequence[Entry]], Entry], signer: Signer | None) -> Version:
        """Enter what ``make`` gives for the present record; if another writer is faster, ask it again for the new
        one.
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
            made = make(entries)
            if made in entries:  # admitted before
                return self._version(made, entries)
            made = replace(made, sequence=len(entries), previous=entries[-1].sha256 if entries else GENESIS).signed(
                signer
            )
            try:
                append(self.place, made)
            except FileExistsError:
                continue
            return self._version(made, [*entries, made])
        raise BundleError(
            f"{self.place.location(RECORD)} could not be written: other writers were faster {_TRIES} times.",
            "Try again.",
        )

    def _make(self) -> None:
        if "store.json" not in self.place.names(""):
            with suppress(FileExistsError):  # another writer made the same one
                self.place.create("store.json", schema_bytes())

    def _move(self, action: Action, admitted: Entry, stage: str, who: str, why: str) -> Entry:
        with tempfile.TemporaryDirectory() as folder:
            bundle = verify_version(self.place, admitted, self.requirements, Path(folder))
            require_verdict(bundle, policies=self.requirements.policies)
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
