"""An edit as one word of a command line."""

from __future__ import annotations

from typing import Any

from elude.handlers.errors import UsageError


def parse_edit(text: str, kind: str = "id") -> dict[str, Any]:
    """``ID=ACTION[:VALUE][@PATCHES]``, or a concept's name instead of the identifier, as the JSON of an edit."""
    name, _, rest = text.rpartition("=")
    action_value, _, patches = rest.partition("@")
    action, _, value = action_value.partition(":")
    if not name or not action:
        raise UsageError(f"The edit {text!r} cannot be read.", f"Write {kind.upper()}=ACTION[:VALUE][@PATCHES].")
    found: dict[str, Any] = {kind: name, "action": action}
    try:
        if value:
            found["value"] = float(value)
        if patches:
            found["patches"] = int(patches)
    except ValueError as error:
        raise UsageError(
            f"The edit {text!r} has a value that is not a number.", f"Write {kind.upper()}=ACTION[:VALUE][@PATCHES]."
        ) from error
    return found
