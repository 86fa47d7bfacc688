"""A found name, and the file that keeps what speaks for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES = "names.json"


@dataclass(frozen=True)
class Name:
    """The name of one sub-unit.

    Attributes:
        index: of the sub-unit, over all layers.
        name: the concept.
        method: ``labels``, ``clip`` or ``neighbour``.
        score: how well it fits, in the method's own measure.
        evidence: what else the method found: the statistic, its significance, the runner-up.
    """

    index: int
    name: str
    method: str
    score: float
    evidence: Mapping[str, Any] = field(default_factory=dict)


def names_json(names: Iterable[Name], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``names.json``: how the names were found and what speaks for each."""
    listed = sorted(names, key=lambda each: each.index)
    rows = [
        {"index": each.index, "name": each.name, "method": each.method, "score": each.score} | dict(each.evidence)
        for each in listed
    ]
    return {"schema_version": 1, "settings": dict(settings), "names": rows}
