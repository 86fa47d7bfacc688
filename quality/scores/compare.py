"""Two reports side by side: dimension by dimension, as rows for a terminal. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from elude.handlers.errors import UsageError
from elude.handlers.files import read_json
from elude.quality.dimensions import DIMENSIONS, GATED_FACTORS, HIGHER_IS_BETTER
from elude.quality.dimensions.measured_on import unlike
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.dimensions.result import DimensionResult


@dataclass(frozen=True)
class Change:
    """One dimension of both.

    Attributes:
        first, second: values, None where not measured.
        difference: second - first.
        interval: 95 % interval of the difference, None where a value has none.
        verdict: ``better``, ``worse`` or ``within noise``; ``unknown`` without an interval; ``same``; ``not measured``;
            ``not comparable`` where both were not measured on the same images in the same way.
        reason: why it is not comparable.
        factor: of the dimension, that this is about; empty for the dimension itself.
    """

    dimension: str
    first: float | None
    second: float | None
    difference: float | None
    interval: tuple[float, float] | None
    verdict: str
    reason: str = ""
    factor: str = ""

    @property
    def name(self) -> str:
        """``accuracy``, or ``adversarial_robustness.pgd_1`` for a factor."""
        return f"{self.dimension}.{self.factor}" if self.factor else self.dimension


@dataclass(frozen=True)
class Comparison:
    """Of two reports; ``same_suite`` says whether both were measured with the same suite."""

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
    """How ``second`` differs from ``first``, in the dimensions that both measured on the same images in the same way.

    Both intervals are added as squares around their middles (Zou & Donner 2008), as if the images
    were other ones: on the same images the truth is more certain than this says.
    """
    changes = []
    for dimension in DIMENSIONS:
        before, after = first.dimensions.get(dimension), second.dimensions.get(dimension)
        changes.append(_change(dimension, before, after))
        for factor in GATED_FACTORS.get(dimension, ()) if dimension == "adversarial_robustness" else ():
            if before is not None and after is not None and factor in before.factors and factor in after.factors:
                changes.append(_change(dimension, _factor(before, factor), _factor(after, factor), factor))
    labels = names or (str(first.subject.get("model")), str(second.subject.get("model")))
    return Comparison(*labels, first.suite.get("sha256") == second.suite.get("sha256"), tuple(changes))


def _factor(result: DimensionResult, factor: str) -> DimensionResult:
    return replace(result, value=result.factors[factor], interval=result.factor_intervals.get(factor))


def _change(dimension: str, before: DimensionResult | None, after: DimensionResult | None, factor: str = "") -> Change:
    if before is None or after is None:
        first, second = (None if result is None else result.value for result in (before, after))
        return Change(dimension, first, second, None, None, "not measured", factor=factor)
    if difference := unlike(dimension, before.measured_on, after.measured_on):
        return Change(dimension, before.value, after.value, None, None, "not comparable", difference, factor)
    change = after.value - before.value
    interval = None
    if before.interval is not None and after.interval is not None:
        middle = sum(after.interval) / 2 - sum(before.interval) / 2
        half = math.hypot(*((high - low) / 2 for low, high in (before.interval, after.interval)))
        interval = (middle - half, middle + half)
    verdict = _verdict(dimension, change, interval)
    return Change(dimension, before.value, after.value, change, interval, verdict, factor=factor)


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
    lines = {}
    for change in comparison.changes:
        first, second = _texts(change.first, change.second)
        numbers = f"{first} → {second}"
        if change.difference is not None:
            numbers += (
                f"   {change.difference:+.4f}" if abs(change.difference) >= 1e-4 else f"   {change.difference:+.2g}"
            )
        if change.interval is not None:
            numbers += f"   95 % in [{change.interval[0]:+.4f}, {change.interval[1]:+.4f}]"
        lines[change.name] = f"{numbers}   {change.verdict}{f': {change.reason}' if change.reason else ''}"
    return lines


def _texts(first: float | None, second: float | None) -> tuple[str, str]:
    """Both numbers, with as many decimals as tell them apart."""
    if first is None or second is None:
        return tuple("–" if value is None else f"{value:.4f}" for value in (first, second))  # type: ignore[return-value]
    for decimals in range(4, 17):
        texts = f"{first:.{decimals}f}", f"{second:.{decimals}f}"
        if texts[0] != texts[1] or first == second:
            return texts
    return repr(first), repr(second)
