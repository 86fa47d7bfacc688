"""The versions that a store has promoted, as the web front end serves them: asked again and again while it runs.

Each version is fetched once, into a private folder, compared with the record there, and asked for answers; the files
that were compared are the files that are served, whatever happens to the store meanwhile.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from elude.handlers.admission.admission import admit
from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EludeError, UsageError
from elude.handlers.torchserve.check_archive import read_settings
from elude.handlers.web.plan import Plan, PlannedVersion, planned
from elude.model_store.rehearsal import require_answers
from elude.model_store.store import Store
from elude.model_store.versions import Version, require_stage

_RETRY_S = 60  # between two attempts to serve a version that could not be served
_KEPT = 3  # plans whose copies are kept; a rollback is then at once
logger = logging.getLogger("elude.store")


class StoreSource:
    """Gives the plan of what is in a stage now; a version that cannot be served leaves the one before in its place.

    Args:
        store: the store.
        names: of series; empty for all that have a version in one of the stages.
        stages: the first one's version answers where a URL names none; stages are labels.
    """

    def __init__(self, store: Store, names: Sequence[str] = (), stages: Sequence[str] = ("production",)) -> None:
        for stage in stages:
            require_stage(stage)
        self._store, self._names, self._stages = store, tuple(names), tuple(stages)
        self._plan: Plan | None = None
        self._fetched: dict[str, PlannedVersion] = {}
        self._refused: dict[str, tuple[float, EludeError]] = {}  # when, and why
        self._recent: list[Plan] = []  # of these the copies are kept

    def __call__(self, folder: Path) -> Plan:
        """The plan now; copies lie in ``folder``.

        Raises:
            EludeError: at the first call only, if something cannot be served; later it is among the plan's problems.
        """
        if self._plan is None:
            self._plan = self._first(folder)
        else:
            self._plan = self._next(folder, self._plan)
        if self._recent[-1:] != [self._plan]:
            self._recent = [*self._recent, self._plan][-_KEPT:]
            self._forget()
        return self._plan

    def _first(self, folder: Path) -> Plan:
        wanted = self._wanted()
        if not wanted:
            raise UsageError(f"Nothing is in stage {' or '.join(self._stages)}.", "Promote a version first.")
        entries = [self._entry(version, folder) for versions in wanted.values() for version in versions]
        return Plan(tuple(entries), self._requirements())

    def _next(self, folder: Path, before: Plan) -> Plan:
        try:
            wanted = self._wanted()
        except EludeError as error:  # the store cannot be read just now
            return replace(before, problems=dict.fromkeys(before.models, str(error)))
        # A store never empties a stage: a record without one was cut off, or lies on a disk that is not mounted.
        gone = [name for name in before.models if name not in wanted]
        entries = [entry for name in gone for entry in before.of(name)]
        problems = {name: f"{name} is in no stage any more: is the whole store there?" for name in gone}
        for name, versions in wanted.items():
            try:
                entries += [self._entry(version, folder) for version in versions]
            except EludeError as error:
                problems[name] = f"{versions[0].id}: {error}"
                entries += before.of(name)
        return Plan(tuple(entries), before.requirements, problems)

    def _wanted(self) -> dict[str, list[Version]]:
        """Series → its versions in the stages, in the order of the stages.

        Raises:
            UsageError: a named series has none.
        """
        versions = self._store.list()
        names = self._names or tuple(dict.fromkeys(version.name for version in versions))
        wanted: dict[str, list[Version]] = {}
        for name in names:
            staged = [
                version
                for stage in self._stages
                for version in versions
                if version.name == name and stage in version.stages
            ]
            if staged:
                wanted[name] = list({version.id: version for version in staged}.values())
            elif self._names:
                raise UsageError(f"{name} has no version in stage {' or '.join(self._stages)}.", "Promote one.")
        return wanted

    def _entry(self, version: Version, folder: Path) -> PlannedVersion:
        """The version, fetched and tried if it was not yet."""
        if version.id not in self._fetched:
            self._fetched[version.id] = self._tried(version, folder / version.name / str(version.number))
        stages = tuple(stage for stage in self._stages if stage in version.stages)
        return replace(self._fetched[version.id], labels=stages)

    def _tried(self, version: Version, place: Path) -> PlannedVersion:
        """Fetch a version; one that failed is tried again after a while, as its store may be mended."""
        when, error = self._refused.get(version.id, (0.0, None))
        if error is not None and time.monotonic() < when + _RETRY_S:
            raise error
        try:
            entry = self._fetch(version, place)
        except EludeError as reason:
            shutil.rmtree(place, ignore_errors=True)
            self._refused[version.id] = (time.monotonic(), reason)
            logger.error("a version is not served", extra={"fields": {"version": version.id, "reason": str(reason)}})
            raise
        self._refused.pop(version.id, None)
        return entry

    def _fetch(self, version: Version, place: Path) -> PlannedVersion:
        fetched = self._store.fetch(version.id, place)
        bundle = Bundle.open(fetched.bundle)
        admit(bundle, self._requirements())
        require_answers(bundle)
        name, settings = f"{version.number}.0", {}
        if fetched.archive is not None:
            info, kept = read_settings(Path(fetched.archive))
            name, settings = info.version, kept.to_json()
            Path(fetched.archive).unlink()
        return planned(bundle.root, version.name, name, settings)

    def _requirements(self) -> Requirements:
        return replace(self._store.requirements, verdict=True, archives=None)

    def _forget(self) -> None:
        """Remove the copies that no recent plan names: some worker may still answer from the last but one."""
        needed = {entry.bundle for plan in self._recent for entry in plan.versions}
        for version, entry in list(self._fetched.items()):
            if entry.bundle not in needed:
                del self._fetched[version]
                shutil.rmtree(Path(entry.bundle).parent, ignore_errors=True)
