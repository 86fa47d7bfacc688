"""What the gate decides on: the measurements and claims of one bundle, read with distrust.

Reading never raises on content: what cannot be used becomes a ``problem`` in words, and a problem fails its check.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError
from elude.handlers.files import parse_json
from elude.quality.dimensions import HIGHER_IS_BETTER, RANGES

QUALITY_SCHEMA_VERSION = 2
_LONGEST = 80  # characters of a value that a sentence quotes


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

    def measurement(self, dimension: str, factor: str = "") -> Measurement | None:
        """The measurement of ``dimension``, or of one of its factors; None when it was not measured."""
        if dimension not in self.dimensions:
            return None
        entry = mapping(self.dimensions[dimension])
        if factor:
            if factor not in mapping(entry.get("factors")):
                return None
            interval = mapping(entry.get("factor_intervals")).get(factor)
            entry = {**entry, "value": mapping(entry["factors"])[factor], "interval": interval}
        return read_measurement(entry, HIGHER_IS_BETTER[dimension], RANGES[dimension])

    def measured_on(self, dimension: str) -> Mapping[str, Any]:
        """Which images and changes of them ``dimension`` was measured on; empty if that is not recorded."""
        return mapping(mapping(self.dimensions.get(dimension)).get("measured_on"))


def essence(evidence: Evidence, *, classes: bool) -> dict[str, Any]:
    """What a comparison reads of a baseline, for the verdict; ``from_essence`` is the inverse.

    Args:
        classes: keep the answers of each class, too.
    """
    quality = None
    if evidence.quality is not None:
        subject, suite = mapping(evidence.quality.get("subject")), evidence.suite
        quality = {
            "schema_version": evidence.quality.get("schema_version"),
            "subject": {"artefact_sha256": subject.get("artefact_sha256")},
            "suite": {"sha256": suite.get("sha256")},
            "dimensions": {name: _plain(entry, classes) for name, entry in evidence.dimensions.items()},
        }
    return {"artefact_sha256": evidence.artefact_sha256, "quality": quality}


def from_essence(data: Mapping[str, Any]) -> Evidence:
    """The baseline that a verdict was given against."""
    quality = data.get("quality")
    return Evidence("", str(data.get("artefact_sha256")), quality if isinstance(quality, dict) else None, None)


def _plain(entry: object, classes: bool) -> dict[str, Any]:
    """Value, interval and direction, with None for what JSON cannot hold."""
    found, raw = mapping(entry), mapping(entry).get("interval")
    interval = [number(end) for end in raw] if isinstance(raw, list) else raw
    answers = {name: row for name, row in mapping(found.get("right_per_class")).items() if isinstance(row, str)}
    return {
        "value": number(found.get("value")),
        "interval": interval,
        "higher_is_better": found.get("higher_is_better"),
        "factors": {name: number(value) for name, value in mapping(found.get("factors")).items()},
        "measured_on": dict(mapping(found.get("measured_on"))),
    } | ({"right_per_class": answers} if classes and answers else {})


def gather(bundle: Bundle) -> Evidence:
    """Read quality.json and equivalence.json of an opened bundle."""
    problems: list[str] = []
    documents: dict[str, tuple[Mapping[str, Any] | None, str]] = {}
    for name in ("quality.json", "equivalence.json"):
        documents[name] = (None, "")
        if not bundle.has(name):
            problems.append(f"{name} is missing")
            continue
        try:
            content = bundle.read(name)
            parsed = parse_json(content)
        except (BundleError, ValueError) as error:
            problems.append(f"{name} cannot be used: {error}")
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


def read_measurement(
    data: object, higher_is_better: bool, measure: tuple[float, float] = (-math.inf, math.inf)
) -> Measurement:
    """Read one entry of ``dimensions``: a finite value and interval in the range of the ``measure``, in the known
    direction.
    """
    entry = mapping(data)
    value = number(entry.get("value"))
    if value is None:
        return Measurement(problem=f"its value is {quoted(entry.get('value'))}, not a finite number")
    if entry.get("higher_is_better") is not higher_is_better:
        return Measurement(
            value, problem=f"it was recorded with higher_is_better = {quoted(entry.get('higher_is_better'))}"
        )
    if not measure[0] <= value <= measure[1]:
        return Measurement(value, problem=f"its value {value!r} cannot be: the measure goes {_from_to(measure)}")
    interval, problem = _interval(entry.get("interval"), measure)
    return Measurement(value, interval, problem)


def _interval(raw: object, measure: tuple[float, float]) -> tuple[tuple[float, float] | None, str]:
    """The interval, or what is wrong with it."""
    if raw is None:
        return None, ""
    ends = [number(end) for end in raw] if isinstance(raw, list) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None or not ends[0] <= ends[1]:
        return None, f"its interval {quoted(raw)} is not a pair of ascending finite numbers"
    if ends[0] < measure[0] or ends[1] > measure[1]:
        return None, f"its interval {quoted(raw)} cannot be: the measure goes {_from_to(measure)}"
    return (ends[0], ends[1]), ""


def _from_to(measure: tuple[float, float]) -> str:
    low, high = measure
    return f"from {low:g} to {high:g}" if math.isfinite(high) else f"from {low:g} upwards"


def number(value: object) -> float | None:
    """``value`` as a float if it is a finite number, else None; booleans are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def quoted(value: object) -> str:
    """``value`` of a JSON document for a sentence: the same in whatever order its keys were, and not too long."""
    text = json.dumps(value, sort_keys=True, default=repr)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}
