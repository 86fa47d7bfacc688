"""An edit as one word of a command line."""

from __future__ import annotations

from typing import Any

from handlers.errors import UsageError


def parse_edit(text: str) -> dict[str, Any]:
    """``ID=ACTION[:VALUE][@PATCHES]`` as the JSON of an edit."""
    identifier, _, rest = text.partition("=")
    action_value, _, patches = rest.partition("@")
    action, _, value = action_value.partition(":")
    found: dict[str, Any] = {"id": identifier, "action": action}
    try:
        if value:
            found["value"] = float(value)
        if patches:
            found["patches"] = int(patches)
    except ValueError as error:
        raise UsageError(f"The edit {text!r} has a value that is no number.", "Write ID=ACTION[:VALUE][@PATCHES].") from error
    return found
