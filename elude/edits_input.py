"""From the names that a caller writes to sub-units and edits as a request carries them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from elude.handlers.answers.operations import parts_of
from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.errors import RequestError, UsageError
from elude.handlers.requests.edit_text import parse_edit
from elude.handlers.requests.steering import identifier_of, index_of, members_of

_FORM = "Write {'NAME OR IDENTIFIER': gain}, e.g. {'blocks.5.mlp.fc2/u31.s4': 0.0}."


def edit_requests(edits: Any, layers: Sequence[LayerInfo], catalogue: Catalogue | None) -> list[dict[str, Any]]:
    """Edits as ``Model.steer`` takes them, as the JSON of a request.

    Raises:
        UsageError: an edit is not of a known form, or names nothing that the model has.
    """
    if isinstance(edits, Mapping):
        return [entry for key, value in edits.items() for entry in _edits(key, value, layers, catalogue)]
    if isinstance(edits, (list, tuple)) and edits and all(isinstance(edit, Mapping) for edit in edits):
        return [dict(edit) for edit in edits]
    remedy = f"Write {{{edits!r}: 0.0}}, or another gain." if isinstance(edits, str) else _FORM
    raise UsageError(f"The edits {edits!r:.80} cannot be used.", remedy)


def members(name: str, layers: Sequence[LayerInfo], catalogue: Catalogue | None) -> tuple[str, ...]:
    """Identifiers of the sub-units of a concept, by its name or identifier, most typical first.

    Raises:
        UsageError: there is no such concept, and no sub-unit of that name; says which names are like it.
    """
    indices = members_of(name, catalogue) if isinstance(name, str) else ()
    if not indices and isinstance(name, str) and _is_sub_unit(name, layers):
        raise UsageError(f"{name!r} is a sub-unit, not a concept.", f"Write feature({name!r}).")
    if not indices:
        raise UsageError(f"No concept and no sub-unit is named {name!r}.", _names_like(name, catalogue))
    return tuple(identifier_of(index, layers) for index in indices)


def concepts(catalogue: Catalogue | None) -> dict[str, int]:
    """Concepts by name, or by identifier while unnamed, with their numbers of sub-units, the largest first.

    In a catalogue without concepts, as earlier versions wrote it: the names of sub-units.
    """
    if catalogue is None:
        return {}
    if rows := catalogue.concepts():
        return {row.name or row.id: len(row.members) for row in rows}
    return dict(Counter(row.name for row in catalogue.sub_units() if row.name).most_common())


def identifier(value: Any, layers: Sequence[LayerInfo], catalogue: Catalogue | None) -> str:
    """The identifier of one sub-unit, which is given as such or as an object that has one as ``id``.

    Raises:
        UsageError: it is a unit, a name, or nothing that the model has; says what to write instead.
    """
    text = getattr(value, "id", value)
    if not isinstance(text, str):
        raise _not_a_name(text, layers)
    if _is_sub_unit(text, layers):
        return text
    if parts := _parts(text, layers):
        raise UsageError(f"{text!r} is a unit with {len(parts)} sub-units.", f"Write one of them, e.g. {parts[0]!r}.")
    if named := members_of(text, catalogue):
        best = identifier_of(named[0], layers)
        raise UsageError(
            f"{text!r} is a concept with {len(named)} sub-units.",
            f"concept({text!r}) gives them all; the most typical is {best!r}.",
        )
    raise UsageError(f"There is no sub-unit {text!r}.", _names_like(text, catalogue))


def _edits(key: Any, value: Any, layers: Sequence[LayerInfo], catalogue: Catalogue | None) -> list[dict[str, Any]]:
    text = getattr(key, "id", key)
    if not isinstance(text, str):
        raise _not_a_name(text, layers)
    if _is_sub_unit(text, layers):
        return [_change(text, value, "id")]
    if parts := _parts(text, layers):
        changes = [_change(part, value, "id") for part in parts]
        if len(parts) > 1 and changes[0]["action"] not in ("scale", "ablate"):
            raise UsageError(
                f"{text!r} is a unit with {len(parts)} sub-units, which {value!r} would change one by one.",
                f"Name the sub-unit, e.g. {parts[0]!r}, or give a gain, which scales the whole unit.",
            )
        return changes
    if "/u" in text and not members_of(text, catalogue):
        raise UsageError(f"There is no sub-unit {text!r}.", _names_like(text, catalogue))
    members(text, layers, catalogue)
    return [_change(text, value, "concept")]


def _change(name: str, value: Any, kind: str) -> dict[str, Any]:
    if isinstance(value, str):
        return parse_edit(f"{name}={value}", kind)
    try:
        gain = float(value)
    except (TypeError, ValueError):
        raise UsageError(
            f"The change of {name!r} is {value!r}.", "Give a gain such as 0.0 or 3.0, or a text such as 'set:2.5@10'."
        ) from None
    return {kind: name, "action": "scale", "value": gain}


def _is_sub_unit(text: str, layers: Sequence[LayerInfo]) -> bool:
    try:
        index_of(text, layers, "id")
    except RequestError:
        return False
    return True


def _parts(text: str, layers: Sequence[LayerInfo]) -> list[str]:
    """Identifiers of a unit's sub-units; none if there is no such unit."""
    try:
        return [identifier_of(index, layers) for index in parts_of(text, layers)]
    except RequestError:
        return []


def _not_a_name(value: Any, layers: Sequence[LayerInfo]) -> UsageError:
    hint = f"Write an identifier such as {identifier_of(0, layers)!r}, or a name, as text."
    if isinstance(value, int) and any(layer.first <= value < layer.first + layer.sub_units for layer in layers):
        hint = f"Write the identifier: {identifier_of(value, layers)!r}."
    return UsageError(f"{value!r} does not name a sub-unit.", hint)


def _names_like(text: Any, catalogue: Catalogue | None) -> str:
    names = sorted(concepts(catalogue))
    if not names:
        return "Nothing here has a name: find identifiers with inspect(image), or give names with 'elude name'."
    by_case = {name.lower(): name for name in reversed(names)}
    close = [by_case[name] for name in difflib.get_close_matches(str(text).lower(), by_case, 3, 0.5)]
    return f"Names like it: {', '.join(map(repr, close or names[:3]))}; search('WORD') finds others."
