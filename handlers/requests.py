"""What can be asked: one frozen dataclass an operation, the limits, and the way from a body to one of them.

A body is raw image bytes (``predict``, or ``inspect`` on the explanations route), or a JSON object whose ``op`` names the operation.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field, fields
from typing import Any

from handlers.edits import Edit
from handlers.errors import RequestError, UsageError
from handlers.images import Limits as ImageLimits
from handlers.validation import read


@dataclass(frozen=True)
class Limits:
    """What a request may at most ask for."""

    max_bytes: int = 6 * 2**20
    max_pixels: int = 25_000_000
    max_edits: int = 64
    max_top_k: int = 100
    max_query: int = 200
    max_value: float = 1e6

    @property
    def image(self) -> ImageLimits:
        """The part that decoding needs."""
        return ImageLimits(self.max_bytes, self.max_pixels)

    @classmethod
    def from_json(cls, value: Any) -> Limits:
        """From configuration; UsageError for an unknown name or a value that is not a positive number."""
        known = {entry.name for entry in fields(cls)}
        if not isinstance(value, dict) or not set(value) <= known:
            raise UsageError(f"Limits {value!r} cannot be used.", f"Known limits: {', '.join(sorted(known))}.")
        for name, limit in value.items():
            if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < float("inf"):
                raise UsageError(f"Limit {name} is {limit!r}.", "It must be a positive number.")
        return cls(**value)


@dataclass(frozen=True)
class EditRequest:
    """Change one sub-unit: scale its activation, ablate it (to 0), set it to a value or add a value."""

    id: str = field(metadata={"maximum": 300})
    action: str = field(metadata={"choices": ("scale", "ablate", "set", "add")})
    value: float | None = field(default=None, metadata={"limit": "max_value", "symmetric": True})
    patches: int = field(default=0, metadata={"minimum": 0, "maximum": 2**31 - 1})

    def to_edit(self, index: int, where: str) -> Edit:
        """The edit of the graph; RequestError where the value is missing or not wanted."""
        if self.action == "ablate":
            if self.value is not None:
                raise RequestError(f"Field '{where}.value' must be left out: ablate takes none.")
            return Edit.ablate(index, self.patches)
        if self.value is None:
            raise RequestError(f"Field '{where}.value' is missing: {self.action} needs one.")
        make = {"scale": Edit.scale, "set": Edit.set, "add": Edit.add}[self.action]
        return make(index, self.value, self.patches)


_IMAGE = {"limit": "max_bytes"}
_TOP_K = {"minimum": 1, "limit": "max_top_k"}


@dataclass(frozen=True)
class Predict:
    """The most probable classes of an image."""

    image: bytes = field(metadata=_IMAGE)
    top_k: int = field(default=5, metadata=_TOP_K)


@dataclass(frozen=True)
class Inspect:
    """The sub-units that an image activates most, and where."""

    image: bytes = field(metadata=_IMAGE)
    top_k: int = field(default=10, metadata=_TOP_K)
    layer: str | None = field(default=None, metadata={"maximum": 200})
    heat_map: str = field(default="grid", metadata={"choices": ("grid", "png", "none")})


@dataclass(frozen=True)
class Steer:
    """The prediction with edited sub-units beside the one without."""

    image: bytes = field(metadata=_IMAGE)
    edits: tuple[EditRequest, ...] = field(metadata={"limit": "max_edits"})
    top_k: int = field(default=5, metadata=_TOP_K)


@dataclass(frozen=True)
class Feature:
    """One sub-unit: statistics, name, example images."""

    id: str = field(metadata={"maximum": 300})
    examples: int = field(default=9, metadata={"minimum": 0, "maximum": 100})


@dataclass(frozen=True)
class Search:
    """Sub-units by name."""

    query: str = field(metadata={"limit": "max_query"})
    limit: int = field(default=20, metadata=_TOP_K)


@dataclass(frozen=True)
class Describe:
    """What is served: model, layers, operations, limits, hashes, verdict."""


Request = Predict | Inspect | Steer | Feature | Search | Describe
OPERATIONS: dict[str, type[Request]] = {
    "predict": Predict,
    "inspect": Inspect,
    "steer": Steer,
    "feature": Feature,
    "search": Search,
    "describe": Describe,
}


def parse(body: Any, *, explain: bool = False, limits: Limits = Limits()) -> Request:
    """From a body to a request.

    Args:
        body: bytes, text, or an object that JSON gave; None where the caller sent nothing.
        explain: whether it came by the explanations route, where the operation is ``inspect``.
        limits: see ``Limits``.

    Raises:
        RequestError: the body is none of the forms, or a field does not fit; names the field.
    """
    if isinstance(body, (bytes, bytearray)):
        data = bytes(body)
        if not data[:64].lstrip().startswith((b"{", b"[")):  # no image format begins so
            return _raw(data, explain, limits)
        body = _json(data, limits)
    elif isinstance(body, str):
        if not body[:64].lstrip().startswith(("{", "[")):
            return _raw(_base64(body, limits), explain, limits)
        body = _json(body.encode(), limits)
    if not isinstance(body, dict):
        raise RequestError("The request holds neither an image nor a JSON object.", "Send image bytes, or an object with a field 'op'.")
    default = "inspect" if explain else "predict"
    op = body.get("op", default)
    if not isinstance(op, str) or op not in OPERATIONS:
        raise RequestError(f"Field 'op' is {str(op)[:60]!r}.", f"Use one of {', '.join(OPERATIONS)}.")
    if explain and op != "inspect":
        raise RequestError(f"Field 'op' is {op!r}, but this route explains.", "Send it to the predictions route.")
    return read(OPERATIONS[op], {name: value for name, value in body.items() if name != "op"}, limits)


def _raw(data: bytes, explain: bool, limits: Limits) -> Request:
    if len(data) > limits.max_bytes:
        raise RequestError(f"The image has {len(data)} bytes; at most {limits.max_bytes} are allowed.", status=413)
    return Inspect(data) if explain else Predict(data)


def _json(data: bytes, limits: Limits) -> Any:
    if len(data) > 2 * limits.max_bytes + 2**16:
        raise RequestError(f"The request has {len(data)} bytes, more than an image of {limits.max_bytes} bytes needs.", status=413)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The request is not JSON: {error}.") from error


def _base64(text: str, limits: Limits) -> bytes:
    if len(text) > limits.max_bytes / 3 * 4 + 4:
        raise RequestError(f"The image is larger than the {limits.max_bytes} bytes that are allowed.", status=413)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"The text is neither JSON nor a base64 image: {error}.") from error
