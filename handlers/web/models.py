"""The models of one process: versions that answer, found by name, version or label, and exchanged without a gap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException

from elude.handlers.errors import EludeError
from elude.handlers.service import Service
from elude.handlers.web.batches import Batches, Places
from elude.handlers.web.health import Health
from elude.handlers.web.limits import WebLimits
from elude.handlers.web.metrics import Metrics
from elude.handlers.web.plan import Plan, PlannedVersion


class Served:
    """One version that answers, until it is retired and its last request is answered.

    Args:
        service: answers.
        version: in URLs.
        batches: of the service.
        key: what decides how it answers (``PlannedVersion.key``).
    """

    def __init__(self, service: Service, version: str, batches: Batches, key: str = "") -> None:
        self.service, self.version, self.batches, self.key = service, version, batches, key
        self.health = Health(service, service.settings.recheck_s)
        self._users, self._retired = 0, False

    @property
    def names(self) -> tuple[str, str]:
        """Model and version."""
        return self.service.model, self.version

    @contextmanager
    def in_use(self) -> Iterator[Served]:
        """While a request is being answered; on the event loop only."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            self._close_if_done()

    def retire(self) -> None:
        """End once nobody is being answered."""
        self._retired = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self._users:
            self.batches.close()
            self.health.close()


@dataclass(frozen=True)
class Table:
    """What is served at one moment; requests see one table or the next, never a part of each.

    Attributes:
        versions: model → its versions, the default one first.
        labels: model → label → version.
        problems: model → why a newer version is not served.
    """

    versions: Mapping[str, Sequence[Served]]
    labels: Mapping[str, Mapping[str, Served]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def all(self) -> list[Served]:
        """Every version of every model."""
        return [served for versions in self.versions.values() for served in versions]

    def find(self, model: str, version: str | None = None, label: str | None = None) -> Served:
        """The version that a URL names; HTTPException 404 if there is none."""
        versions = self.versions.get(model)
        if versions is None:
            raise HTTPException(404, f"Model not found: {model[:100]}")
        if label is not None:
            labels = self.labels.get(model, {})
            if label not in labels:
                known = ", ".join(labels) or "none"
                raise HTTPException(404, f"Model {model} has no label {label[:100]}; labels: {known}.")
            return labels[label]
        if version is None:
            return versions[0]
        for served in versions:
            if served.version == version:
                return served
        known = ", ".join(served.version for served in versions)
        raise HTTPException(404, f"Model {model} has no version {version[:100]}; served: {known}.")

    def unhealthy(self, model: str | None = None) -> str:
        """What is wrong with one model or any, empty if nothing is."""
        served = self.all if model is None else self.versions[model]
        problems = ((" ".join(entry.names), entry.health.problem()) for entry in served)
        return next((f"{name}: {problem}" for name, problem in problems if problem), "")


class Models:
    """The table of a process, and how another comes about.

    Args:
        batch_size: requests of one version that may share a forward pass.
        limits: see ``WebLimits``.
    """

    def __init__(self, batch_size: int = 8, limits: WebLimits = WebLimits()) -> None:
        self.limits, self.metrics, self.table = limits, Metrics(), Table({})
        self._size, self._places = batch_size, Places(limits.max_waiting)

    @classmethod
    def of(cls, service: Service, version: str = "1.0", batch_size: int = 8, limits: WebLimits = WebLimits()) -> Models:
        """With one version of one model."""
        models = cls(batch_size, limits)
        models.table = Table({service.model: [models.serve(service, version)]})
        return models

    @classmethod
    def load(cls, plan: Plan, batch_size: int = 8, limits: WebLimits = WebLimits()) -> Models:
        """With all that a plan names.

        Raises:
            EludeError: a version cannot be loaded, as ``PlannedVersion.open`` says.
        """
        models = cls(batch_size, limits)
        opened = {entry.key: models.open(entry, plan) for entry in plan.versions}
        models.table = table_of(plan, opened)
        return models

    def serve(self, service: Service, version: str, key: str = "") -> Served:
        """A service that is ready to answer."""
        record = self.metrics.batches_of(service.model, version)
        return Served(service, version, Batches(service, self._size, self._places, record), key)

    def open(self, entry: PlannedVersion, plan: Plan) -> Served:
        """Load a version; EludeError as ``PlannedVersion.open``."""
        return self.serve(entry.open(plan.requirements), entry.version, entry.key)

    def successor(self, plan: Plan) -> tuple[Table, dict[str, str]]:
        """The table that a plan asks for, in which a model of which a version cannot be loaded stays as it is.

        Loads what is new beside what answers; for a thread of its own.

        Returns:
            the table, and model → why a version of it was not loaded.
        """
        present = {served.key: served for served in self.table.all}
        failed: dict[str, str] = {}
        for model in plan.models:
            for entry in plan.of(model):
                if entry.key not in present and model not in failed:
                    try:
                        present[entry.key] = self.open(entry, plan)
                    except EludeError as error:
                        failed[model] = f"{entry.name}: {error}"
        table = table_of(plan, present, tuple(failed))
        kept = {model: self.table.versions[model] for model in failed if model in self.table.versions}
        labels = {model: self.table.labels.get(model, {}) for model in kept}
        problems = {**plan.problems, **failed}
        return Table({**table.versions, **kept}, {**table.labels, **labels}, problems), failed

    def exchange(self, table: Table) -> None:
        """Let another table answer from now on; what it lacks ends when its last request is answered."""
        before, self.table = self.table, table
        present = {id(served) for served in table.all}
        for served in before.all:
            if id(served) not in present:
                served.retire()

    def close(self) -> None:
        """End all threads."""
        self.exchange(Table({}))


def table_of(plan: Plan, opened: Mapping[str, Served], without: Sequence[str] = ()) -> Table:
    """The table of a plan whose versions are open, by key."""
    models = [model for model in plan.models if model not in without]
    versions = {model: [opened[entry.key] for entry in plan.of(model)] for model in models}
    labels = {
        model: {label: opened[entry.key] for entry in plan.of(model) for label in entry.labels} for model in models
    }
    return Table(versions, labels, plan.problems)
