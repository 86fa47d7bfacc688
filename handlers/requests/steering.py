"""From edits by identifier or by concept to edits of the graph, and the presets: named lists of edits in the
bundle's ``presets.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.identifiers import SubUnitId, named_sub_units
from elude.handlers.errors import RequestError
from elude.handlers.json_writing import Written
from elude.handlers.requests.schema import EditRequest
from elude.handlers.settings import Limits

_MAKE = {"scale": Edit.scale, "set": Edit.set, "add": Edit.add}


@dataclass(frozen=True)
class Steered:
    """Edits of a request resolved to indices, and how the answer repeats them."""

    edits: tuple[Edit, ...]
    described: Written


def resolve(
    requested: Sequence[EditRequest], layers: Sequence[LayerInfo], catalogue: Catalogue | None, limits: Limits
) -> Steered:
    """Identifiers and concepts to indices.

    Raises:
        RequestError: 404 for an unknown sub-unit or concept, 400 for a sub-unit that is edited
            twice, too many edits, or a value that does not fit its action.
    """
    edits: dict[int, Edit] = {}
    described: list[dict[str, Any]] = []
    for i, entry in enumerate(requested):
        where = f"edits[{i}]"
        for index in _indices(entry, layers, catalogue, where):
            if index in edits:
                raise RequestError(
                    f"Field '{where}' names {entry.id or entry.concept!r}, which this request already edits.",
                    "Edit each once.",
                )
            if len(edits) == limits.max_edits:
                raise RequestError(
                    f"Field '{where}' makes more than the {limits.max_edits} edits that are allowed.",
                    "Edit fewer sub-units.",
                )
            edits[index] = _edit(entry, index, where)
            identifier = identifier_of(index, layers) if entry.id is None else entry.id
            name = catalogue.name(index) if catalogue else None
            described.append(
                {"id": identifier, "action": entry.action, "value": entry.value, "patches": entry.patches, "name": name}
            )
    return Steered(tuple(edits.values()), Written(described))


def _indices(entry: EditRequest, layers: Sequence[LayerInfo], catalogue: Catalogue | None, where: str) -> Sequence[int]:
    if (entry.id is None) == (entry.concept is None):
        raise RequestError(f"Field '{where}' must have either 'id' or 'concept'.")
    if entry.id is not None:
        if entry.top is not None:
            raise RequestError(f"Field '{where}.top' must be left out: 'id' is one sub-unit.", "Use it with 'concept'.")
        return (index_of(entry.id, layers, f"{where}.id"),)
    members = members_of(entry.concept or "", catalogue)
    if not members:
        message = f"Field '{where}.concept' is {entry.concept!r}: no concept and no sub-unit has that name."
        raise RequestError(message, "Find one with 'search'.", 404)
    return members[: entry.top]


def members_of(concept: str, catalogue: Catalogue | None) -> Sequence[int]:
    """Sub-units of the concept with that name or identifier, most typical first.

    Without such a concept, as in a bundle of an earlier version, the sub-units of that name.
    """
    if catalogue is None:
        return ()
    row = catalogue.concept(concept)
    return catalogue.named(concept) if row is None else row.members


def _edit(entry: EditRequest, index: int, where: str) -> Edit:
    if entry.action == "ablate":
        if entry.value is not None:
            raise RequestError(f"Field '{where}.value' must be left out: ablate takes none.")
        return Edit.ablate(index, entry.patches)
    if entry.value is None:
        raise RequestError(f"Field '{where}.value' is missing: {entry.action} needs one.")
    return _MAKE[entry.action](index, entry.value, entry.patches)


def index_of(identifier: str, layers: Sequence[LayerInfo], where: str) -> int:
    """Index over all layers of ``LAYER/u31.s4``; RequestError naming ``where`` if there is none."""
    for index in named_sub_units(identifier, layers, SubUnitId):
        return index
    raise RequestError(
        f"Field '{where}' is {identifier!r}: there is no such sub-unit.", "Find one with 'inspect' or 'search'.", 404
    )


def identifier_of(index: int, layers: Sequence[LayerInfo]) -> str:
    """The reverse of ``index_of``, for an index that exists."""
    layer = next(entry for entry in layers if entry.first <= index < entry.first + entry.sub_units)
    unit, part = layer.parent(index - layer.first)
    return f"{layer.name}/u{unit}.s{part}"
