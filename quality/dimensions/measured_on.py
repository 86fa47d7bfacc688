"""What a dimension was measured on, as ``quality.json`` records it, and whether two measurements are alike.

A number is evidence only together with its images, corruptions, severities and attacks: two of them can be compared
where all of these are the same, whatever the suite is called. A record is a JSON object: ``sets`` (name to ``images``
and ``sha256``, or ``made`` where a set was made from another one), and what else decides the images: ``corruptions``,
``severities``, ``attacks``, ``seed``. Records are read with distrust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
SAMPLED_NOWHERE = frozenset({"params_m"})  # counted, not measured on images


def images_in(record: object) -> int | None:
    """The number of images of the smallest set; None if the record does not say which images they were."""
    sets = record.get("sets") if isinstance(record, Mapping) else None
    if not isinstance(sets, Mapping) or not sets:
        return None
    counts = []
    for entry in sets.values():
        count = entry.get("images") if isinstance(entry, Mapping) else None
        named = isinstance(entry, Mapping) and (_is_text(entry.get("sha256")) or _is_text(entry.get("made")))
        if type(count) is not int or count < 1 or not named:
            return None
        counts.append(count)
    return min(counts)


def unlike(dimension: str, first: object, second: object) -> str:
    """How two records of ``dimension`` differ, as part of a sentence; empty if both are of the very same images."""
    if dimension in SAMPLED_NOWHERE:
        return ""
    if images_in(first) is None or images_in(second) is None:
        return "it is not recorded which images both were measured on"
    assert isinstance(first, Mapping)
    assert isinstance(second, Mapping)
    if first == second:
        return ""
    sizes = [{name: entry["images"] for name, entry in record["sets"].items()} for record in (first, second)]
    for name in sorted({*sizes[0], *sizes[1]}):
        one, other = (size.get(name, 0) for size in sizes)
        if one != other:
            return f"one was measured on {one} of {name!r}, the other on {other}"
    if first["sets"] != second["sets"]:
        return "they were measured on different images"
    different = [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
    return f"they differ in {', '.join(different)}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
