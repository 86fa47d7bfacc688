"""Two reports side by side: dimension by dimension, as rows for a terminal. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elude.handlers.errors import UsageError
from elude.handlers.files import read_json
from elude.quality.dimensions import DIMENSIONS, HIGHER_IS_BETTER
from elude.quality.evaluation.quality_json import QualityReport


@dataclass(frozen=True)
class Change:
    """One dimension of both.

    Attributes:
        first, second: values, None where not measured.
        difference: second - first.
        interval: 95 % interval of the difference, None where a value has none.
        verdict: ``better``, ``worse`` or ``within noise``; ``unknown`` without an interval; ``same``; ``not measured``.
    """

    dimension: str
    first: float | None
    second: float | None
    difference: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Of two reports; ``same_suite`` tells whether their numbers may be compared at all."""

    first: str
    second: str
    same_suite: bool
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "changes": [asdict(change) for change in self.changes]}


def read_report(path: str | Path) -> QualityReport:
    """A ``quality.json``, or that of a bundle's folder.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    path = Path(path)
    path = path / "quality.json" if path.is_dir() else path
    try:
        return QualityReport.from_json(read_json(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"There is no quality report at {path}: {error}.", "Run elude evaluate first.") from error


def compare(first: QualityReport, second: QualityReport, names: tuple[str, str] | None = None) -> Comparison:
    """How ``second`` differs from ``first``.

    Both intervals are added as squares around their middles (Zou & Donner 2008), as if the images
    were other ones: on the same images the truth is more certain than this says.
    """
    changes = []
    for dimension in DIMENSIONS:
        a, b = first.dimensions.get(dimension), second.dimensions.get(dimension)
        if a is None or b is None:
            changes.append(
                Change(dimension, a.value if a else None, b.value if b else None, None, None, "not measured")
            )
            continue
        difference = b.value - a.value
        interval = None
        if a.interval is not None and b.interval is not None:
            middle = sum(b.interval) / 2 - sum(a.interval) / 2
            half = math.hypot((a.interval[1] - a.interval[0]) / 2, (b.interval[1] - b.interval[0]) / 2)
            interval = (middle - half, middle + half)
        changes.append(
            Change(dimension, a.value, b.value, difference, interval, _verdict(dimension, difference, interval))
        )
    labels = names or (str(first.subject["model"]), str(second.subject["model"]))
    return Comparison(*labels, first.suite.get("sha256") == second.suite.get("sha256"), tuple(changes))


def _verdict(dimension: str, difference: float, interval: tuple[float, float] | None) -> str:
    if difference == 0:
        return "same"
    gain = difference if HIGHER_IS_BETTER[dimension] else -difference
    if dimension == "params_m":  # counted, not sampled
        return "better" if gain > 0 else "worse"
    if interval is None:
        return "unknown"
    if interval[0] <= 0 <= interval[1]:
        return "within noise"
    return "better" if (interval[0] > 0) == HIGHER_IS_BETTER[dimension] else "worse"


def rows(comparison: Comparison) -> dict[str, str]:
    """Dimension to one line of text, for a terminal."""
    found = {}
    for change in comparison.changes:
        numbers = f"{_text(change.first)} → {_text(change.second)}"
        if change.difference is not None:
            numbers += f"   {change.difference:+.4f}"
        if change.interval is not None:
            numbers += f"   95 % in [{change.interval[0]:+.4f}, {change.interval[1]:+.4f}]"
        found[change.dimension] = f"{numbers}   {change.verdict}"
    return found


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
