"""What one dimension's measurement is: a value with its factors, tables and uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Table = Mapping[str, float | None]


@dataclass(frozen=True)
class DimensionResult:
    """One dimension, measured.

    Attributes:
        value: the dimension's value, in the units of ``docs/quality.md``; always finite.
        higher_is_better: the direction that is an improvement.
        images: number of images the value rests on, 0 where none are needed.
        interval: 95 % interval of the value, or None where there is no sampling (parameters) or it was not asked for.
        factors: the numbers the value is composed of. A geometric mean hides which factor was 0; the factors do not.
        tables: break-downs, such as accuracy per class; None for an entry without images.
        measured_on: which images, corruptions, severities and attacks (``quality/dimensions/measured_on.py``).
        factor_intervals: 95 % intervals of those factors that have one.
        right_per_class: of accuracy: class to its images in order, ``1`` for a right answer and ``0`` for a wrong one.
    """

    value: float
    higher_is_better: bool
    images: int
    interval: tuple[float, float] | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    measured_on: Mapping[str, Any] = field(default_factory=dict)
    factor_intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    right_per_class: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a dimension's value is a finite number, not {self.value}")

    def to_json(self) -> dict[str, Any]:
        """The entry of ``quality.json``."""
        entry = {
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "higher_is_better": self.higher_is_better,
            "factors": dict(self.factors),
            "factor_intervals": {name: list(interval) for name, interval in self.factor_intervals.items()},
            "tables": {name: dict(table) for name, table in self.tables.items()},
            "images": self.images,
            "measured_on": dict(self.measured_on),
        }
        return entry | ({"right_per_class": dict(self.right_per_class)} if self.right_per_class else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DimensionResult:
        """Inverse of :meth:`to_json`."""
        interval = data["interval"]
        return cls(
            float(data["value"]),
            bool(data["higher_is_better"]),
            int(data["images"]),
            None if interval is None else (float(interval[0]), float(interval[1])),
            {name: float(value) for name, value in data["factors"].items()},
            {name: dict(table) for name, table in data["tables"].items()},
            dict(data["measured_on"]),
            {name: (float(low), float(high)) for name, (low, high) in data["factor_intervals"].items()},
            dict(data.get("right_per_class", {})),
        )
