"""What the gate decides on: the measurements and claims of one bundle, read with distrust.

Reading never raises on content: what cannot be used becomes a ``problem`` in words, and a problem fails its check.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.files import parse_json
from elude.quality.dimensions import HIGHER_IS_BETTER

QUALITY_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Measurement:
    """One measured dimension, or why it cannot be used."""

    value: float = math.nan
    interval: tuple[float, float] | None = None
    problem: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that the gate reads of one bundle.

    Attributes:
        artefact_sha256: of the bundle's bytes as they are now.
        quality: the parsed quality.json, None when there is none or it cannot be parsed.
        equivalence: the parsed equivalence.json, likewise.
        problems: what was wrong with the files as files.
    """

    model: str
    artefact_sha256: str
    quality: Mapping[str, Any] | None
    equivalence: Mapping[str, Any] | None
    quality_sha256: str = ""
    equivalence_sha256: str = ""
    problems: tuple[str, ...] = field(default=())

    @property
    def suite(self) -> Mapping[str, Any]:
        return mapping((self.quality or {}).get("suite"))

    @property
    def dimensions(self) -> Mapping[str, Any]:
        return mapping((self.quality or {}).get("dimensions"))

    def measurement(self, dimension: str) -> Measurement | None:
        """The measurement of ``dimension``; None when it was not measured."""
        if dimension not in self.dimensions:
            return None
        return read_measurement(self.dimensions[dimension], HIGHER_IS_BETTER[dimension])


def essence(evidence: Evidence) -> dict[str, Any]:
    """What a comparison reads of a baseline, for the verdict; ``from_essence`` is the inverse."""
    quality = None
    if evidence.quality is not None:
        subject, suite = mapping(evidence.quality.get("subject")), evidence.suite
        quality = {
            "schema_version": evidence.quality.get("schema_version"),
            "subject": {"artefact_sha256": subject.get("artefact_sha256")},
            "suite": {"sha256": suite.get("sha256")},
            "dimensions": {name: _plain(entry) for name, entry in evidence.dimensions.items()},
        }
    return {"artefact_sha256": evidence.artefact_sha256, "quality": quality}


def from_essence(data: Mapping[str, Any]) -> Evidence:
    """The baseline that a verdict was given against."""
    quality = data.get("quality")
    return Evidence("", str(data.get("artefact_sha256")), quality if isinstance(quality, dict) else None, None)


def _plain(entry: object) -> dict[str, Any]:
    """Value, interval and direction, with None for what JSON cannot hold."""
    found, raw = mapping(entry), mapping(entry).get("interval")
    interval = [number(end) for end in raw] if isinstance(raw, list) else raw
    return {
        "value": number(found.get("value")),
        "interval": interval,
        "higher_is_better": found.get("higher_is_better"),
    }


def gather(bundle: Bundle) -> Evidence:
    """Read quality.json and equivalence.json of an opened bundle."""
    problems: list[str] = []
    documents: dict[str, tuple[Mapping[str, Any] | None, str]] = {}
    for name in ("quality.json", "equivalence.json"):
        documents[name] = (None, "")
        if not bundle.has(name):
            problems.append(f"{name} is missing")
            continue
        content = bundle.read(name)
        try:
            parsed = parse_json(content)
        except ValueError as error:
            problems.append(f"{name} cannot be parsed: {error}")
            continue
        if not isinstance(parsed, dict):
            problems.append(f"{name} is not a JSON object")
            continue
        documents[name] = (parsed, hashlib.sha256(content).hexdigest())
    quality, quality_sha256 = documents["quality.json"]
    equivalence, equivalence_sha256 = documents["equivalence.json"]
    source = bundle.manifest.source.model
    return Evidence(
        source, bundle.artefact_sha256, quality, equivalence, quality_sha256, equivalence_sha256, tuple(problems)
    )


def read_measurement(data: object, higher_is_better: bool) -> Measurement:
    """Read one entry of ``dimensions``: a finite value inside a finite interval, measured on something, in the known
    direction.
    """
    entry = mapping(data)
    value = number(entry.get("value"))
    if value is None:
        return Measurement(problem=f"its value is {entry.get('value')!r}, not a finite number")
    if entry.get("higher_is_better") is not higher_is_better:
        return Measurement(value, problem=f"it was recorded with higher_is_better = {entry.get('higher_is_better')!r}")
    raw = entry.get("interval")
    if raw is None:
        return Measurement(value)
    ends = [number(end) for end in raw] if isinstance(raw, list) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None or not ends[0] <= ends[1]:
        return Measurement(value, problem=f"its interval {raw!r} is not a pair of ascending finite numbers")
    return Measurement(value, (ends[0], ends[1]))


def number(value: object) -> float | None:
    """``value`` as a float if it is a finite number, else None; booleans are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
