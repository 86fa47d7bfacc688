"""What stands behind the nine numbers: the terms of the score, and the tables per class, corruption and set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from elude.quality.gate.evidence import mapping, number
from elude.quality.report.definitions import DEFINITIONS

_ROWS = 20  # of a longer table, the lowest
_SHOWN = {
    ("accuracy", "accuracy_per_class"): "Accuracy of each class",
    ("corruption_robustness", "relative"): "Relative accuracy under each corruption",
    ("ood_robustness", "accuracy"): "Accuracy on each shifted set",
    ("calibration_error", "reliability"): "Accuracy of the images of each confidence",
    ("shape_bias", "per_shape"): "Shape bias of each shape",
}


@dataclass(frozen=True)
class Term:
    """One dimension's part in the score; ``width`` and ``left`` of its bar in percent, zero being at 50."""

    key: str
    title: str
    z: float
    weight: float
    contribution: float
    left: float
    width: float


@dataclass(frozen=True)
class SeverityChart:
    """Accuracy under one corruption by severity, and on the clean images, all from 0 to 1."""

    title: str
    clean: float | None
    bars: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Breakdown:
    """A table of a dimension: (name, value, percent of its bar), lowest first;

    ``hidden`` rows are left out for space.
    """

    key: str
    title: str
    rows: tuple[tuple[str, float, float], ...]
    hidden: int


def contributions(quality: Mapping[str, Any]) -> tuple[Term, ...]:
    """The terms of the score, if there is one."""
    terms = mapping(mapping(quality.get("score")).get("per_dimension"))
    found: list[tuple[str, float, float, float]] = []
    for dimension in DEFINITIONS:
        entry = mapping(terms.get(dimension))
        z, weight, contribution = (number(entry.get(part)) for part in ("z", "weight", "contribution"))
        if z is not None and weight is not None and contribution is not None:
            found.append((dimension, z, weight, contribution))
    largest = max((abs(contribution) for *_, contribution in found), default=0.0) or 1.0
    return tuple(
        Term(d, DEFINITIONS[d].title, z, w, c, 50 + min(0.0, 50 * c / largest), abs(50 * c / largest))
        for d, z, w, c in found
    )


def breakdowns(quality: Mapping[str, Any]) -> tuple[Breakdown, ...]:
    """The tables that a reader asks for first."""
    found = []
    for (dimension, table), title in _SHOWN.items():
        entries = mapping(mapping(mapping(mapping(quality.get("dimensions")).get(dimension)).get("tables")).get(table))
        values = [(str(name), value) for name, raw in entries.items() if (value := number(raw)) is not None]
        ordered = sorted(values, key=lambda item: item[0] if table == "reliability" else (item[1], item[0]))
        end = max((value for _, value in values), default=0.0)
        rows = tuple((name, value, 100 * max(value, 0.0) / max(end, 1.0)) for name, value in ordered[:_ROWS])
        if rows:
            found.append(Breakdown(dimension, title, rows, len(ordered) - len(rows)))
    return tuple(found)


def severity_charts(quality: Mapping[str, Any]) -> tuple[SeverityChart, ...]:
    """One chart per corruption, the most harmful first, of the accuracies that ``fog/3`` and the like name."""
    entry = mapping(mapping(quality.get("dimensions")).get("corruption_robustness"))
    clean = number(mapping(entry.get("factors")).get("clean_accuracy"))
    charts: dict[str, dict[int, float]] = {}
    for name, raw in mapping(mapping(entry.get("tables")).get("accuracy")).items():
        corruption, _, severity = str(name).rpartition("/")
        value = number(raw)
        if corruption and severity.isdecimal() and value is not None and 0 <= value <= 1:
            charts.setdefault(corruption, {})[int(severity)] = value
    by_severity = {name: tuple(sorted(bars.items())) for name, bars in charts.items()}
    harmful_first = sorted(by_severity.items(), key=lambda item: (fmean(bar for _, bar in item[1]), item[0]))
    return tuple(SeverityChart(name, clean, bars) for name, bars in harmful_first)
