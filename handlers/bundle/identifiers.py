"""The one identifier of a sub-unit, ``blocks.11.mlp.fc2/u31.s4``, and of a unit, ``blocks.11.mlp.fc2/u31``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from elude.handlers.bundle.manifest import LayerInfo
from elude.handlers.errors import UsageError

_PATTERN = re.compile(r"(?P<layer>[A-Za-z0-9_.]+)/u(?P<unit>0|[1-9]\d{0,8})(\.s(?P<part>0|[1-9]\d{0,8}))?")


@dataclass(frozen=True, order=True)
class UnitId:
    """One unit of a layer."""

    layer: str
    unit: int

    def __str__(self) -> str:
        return f"{self.layer}/u{self.unit}"


@dataclass(frozen=True, order=True)
class SubUnitId:
    """One sub-unit: part ``part`` of unit ``unit`` of layer ``layer``."""

    layer: str
    unit: int
    part: int

    def __str__(self) -> str:
        return f"{self.layer}/u{self.unit}.s{self.part}"


def parse_id(text: str) -> UnitId | SubUnitId:
    """Parse either identifier.

    Raises:
        UsageError: if ``text`` is not of that form.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is not the identifier of a unit or sub-unit.", "Write it as 'LAYER/u31' or 'LAYER/u31.s4'."
        )
    layer, unit, part = match["layer"], int(match["unit"]), match["part"]
    return UnitId(layer, unit) if part is None else SubUnitId(layer, unit, int(part))


def named_sub_units(text: str, layers: Sequence[LayerInfo], kind: type[UnitId] | type[SubUnitId]) -> range:
    """Indices over all layers of what an identifier of that kind names: of a unit, its parts. Empty if the text is
    not one, or there is no such unit or sub-unit.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or (match["part"] is None) != (kind is UnitId):
        return range(0)
    unit = int(match["unit"])
    layer = next((layer for layer in layers if layer.name == match["layer"] and unit < layer.units), None)
    if layer is None:
        return range(0)
    parts = range(layer.parts[unit])
    chosen = parts if kind is UnitId else parts[int(match["part"]) : int(match["part"]) + 1]
    first = layer.first + layer.starts[unit]
    return range(first + chosen.start, first + chosen.stop)
