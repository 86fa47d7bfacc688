"""Scores of the features of units that were split, from a bundle's ``measures.json``: the report and the atlas take
their means of these, so that both state the same for one bundle. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from elude.handlers.bundle.manifest import LayerInfo

_UNITS = "units"


def of_split_units(measures: Mapping[str, Any], layers: Sequence[LayerInfo], family: str, measure: str) -> list[float]:
    """The scores of all layers together; features without a score are left out.

    Args:
        measures: the content of ``measures.json``, read with distrust.
        layers: of the manifest.
        family: ``units``, ``sub_units`` or ``random``.
        measure: ``ms``, ``centred`` or ``purity``.

    Returns:
        one score per feature; none of a layer for which the file does not list as many as there are features.
    """
    scores: list[float] = []
    for layer in layers:
        split = [parts > 1 for parts in layer.parts for _ in range(1 if family == _UNITS else parts)]
        listed = _each(measures, layer.name, family, measure)
        if len(listed) == len(split):
            pairs = zip(listed, split, strict=True)
            scores += [float(score) for score, own in pairs if own and isinstance(score, (int, float))]
    return scores


def _each(measures: Mapping[str, Any], *path: str) -> Sequence[Any]:
    layer, family, measure = path
    value: Any = measures
    for key in ("layers", layer, family, "each", measure):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, list) else ()
