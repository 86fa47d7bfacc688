"""How answers are written as JSON; ValueError if a number is not finite."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_compact = json.JSONEncoder(allow_nan=False).encode
_lines = json.JSONEncoder(allow_nan=False, separators=(",\n  ", ": ")).encode


class Written(list[Any]):
    """A list that many answers repeat as it is, so that its JSON is made once. Not to be changed."""

    def __init__(self, items: Iterable[Any]) -> None:
        super().__init__(items)
        self.text = _compact(list(self))


def compact(content: Any) -> bytes:
    """JSON on one line."""
    if isinstance(content, dict) and any(isinstance(value, Written) for value in content.values()):
        members = (
            f"{_compact(key)}: {value.text if isinstance(value, Written) else _compact(value)}"
            for key, value in content.items()
        )
        return f"{{{', '.join(members)}}}".encode()
    return _compact(content).encode()


def indented(content: dict[str, float]) -> bytes:
    """As ``json.dumps(content, indent=2)``, which is how TorchServe's own classifier answers, but by the encoder
    that is written in C.
    """
    return f"{{\n  {_lines(content)[1:-1]}\n}}".encode()
