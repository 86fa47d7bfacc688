"""What a web server serves, written down: versions of models, their labels, and what each must fulfil.

Worker processes read it from a file that only their server writes, and read it again when it changes: that is how a
new version reaches them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError
from elude.handlers.files import read_json, replace_file
from elude.handlers.service import Service
from elude.handlers.settings import read_settings


@dataclass(frozen=True)
class PlannedVersion:
    """One version of one model.

    Attributes:
        model: its name in URLs.
        version: in URLs.
        bundle: folder of the bundle.
        manifest_sha256: of the bundle that was meant; another in its place is refused.
        settings: as ``Settings.from_json`` reads them; those of ``ELUDE_SETTINGS`` go over them.
        labels: further names of this version in URLs, each of one version of a model.
    """

    model: str
    version: str
    bundle: str
    manifest_sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What decides how it answers."""
        decides = (self.model, self.version, self.bundle, self.manifest_sha256, self.settings)
        return json.dumps(decides, sort_keys=True)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.model} {self.version}"

    def open(self, requirements: Requirements) -> Service:
        """Load it: every hash is compared, its admission checked, and one pass run.

        Raises:
            BundleError: something in the bundle does not match its manifest, or it is another bundle.
            GateError: it does not fulfil the requirements.
            UsageError: its settings cannot be used.
        """
        service = Service.open(self.bundle, read_settings(self.settings), model=self.model, requirements=requirements)
        if service.bundle.manifest_sha256 != self.manifest_sha256:
            raise BundleError(f"{self.bundle} is another bundle than when the server started.", "Start it again.")
        return service


@dataclass(frozen=True)
class Plan:
    """All that one server serves.

    Attributes:
        versions: of all models; the first of each is the one that answers where a URL names no version.
        requirements: what each bundle must fulfil.
        problems: model → why its newest version is not among them.
    """

    versions: tuple[PlannedVersion, ...]
    requirements: Requirements = field(default_factory=Requirements)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in order."""
        return tuple(dict.fromkeys(entry.model for entry in self.versions))

    def of(self, model: str) -> tuple[PlannedVersion, ...]:
        """The versions of one model."""
        return tuple(entry for entry in self.versions if entry.model == model)

    def write(self, path: Path) -> None:
        """Write it in one step."""
        content = {
            "versions": [vars(entry) for entry in self.versions],
            "requirements": self.requirements.to_json(),
            "problems": dict(self.problems),
        }
        replace_file(path, json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> Plan:
        """As ``write`` wrote it."""
        content = read_json(path)
        versions = (PlannedVersion(**entry | {"labels": tuple(entry["labels"])}) for entry in content["versions"])
        return cls(tuple(versions), Requirements.from_json(content["requirements"]), content["problems"])


def planned(
    bundle: Path | str,
    model: str,
    version: str,
    settings: Mapping[str, Any] | None = None,
    labels: tuple[str, ...] = (),
) -> PlannedVersion:
    """A version as its bundle lies there now; BundleError if it cannot be read."""
    opened = Bundle.open(bundle, verify=False)
    written: dict[str, Any] = json.loads(json.dumps(settings or {}))  # as it will be read
    return PlannedVersion(model, version, str(bundle), opened.manifest_sha256, written, labels)
