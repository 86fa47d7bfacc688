"""A strict reader of JSON objects into frozen dataclasses: unknown fields, wrong types, NaN and values out of range name the field.

Supports what the requests need: bytes (as base64), str, int, float, bool, optional values, and tuples of dataclasses. A field's
metadata may hold ``minimum``, ``maximum``, ``choices``, ``limit``, the attribute of the limits that is its maximum, and ``symmetric``:
the minimum is minus the maximum.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from handlers.errors import RequestError

_T = TypeVar("_T")
_Form = tuple[bool, Any, Any, bool]
_MAX_SHOWN = 60  # characters of a refused value that a message repeats


def read(cls: type[_T], value: Any, limits: Any, where: str = "") -> _T:
    """Make a ``cls`` from a JSON object.

    Args:
        cls: a frozen dataclass.
        value: what JSON gave.
        limits: an object with the attributes that ``limit`` metadata name.
        where: path of the object within the request, for messages.

    Raises:
        RequestError: naming the field.
    """
    if not isinstance(value, (dict, Mapping)):  # dict first, as asking for an abstract class takes ten times as long
        raise RequestError(f"{where or 'The request'} must be a JSON object, not {shown(value)}.")
    plan = _plan(cls)  # type: ignore[arg-type]  # a class is hashable, which its type variable does not say
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in plan:
            raise RequestError(f"Field {shown(prefix + str(name))} is unknown.", f"Known fields: {', '.join(plan)}.")
    found: dict[str, Any] = {}
    for name, (entry, form) in plan.items():
        if name in value:
            found[name] = _convert(form, value[name], prefix + name, entry.metadata, limits)
        elif entry.default is MISSING:
            raise RequestError(f"Field '{prefix}{name}' is missing.")
    return cls(**found)


@cache
def _plan(cls: type[Any]) -> dict[str, tuple[Field[Any], _Form]]:
    hints = get_type_hints(cls)
    return {entry.name: (entry, _form(hints[entry.name])) for entry in fields(cls)}


def _convert(form: _Form, value: Any, where: str, rules: Mapping[str, Any], limits: Any) -> Any:
    optional, kind, inner, record = form
    if optional and value is None:
        return None
    maximum = getattr(limits, rules["limit"]) if "limit" in rules else rules.get("maximum", math.inf)
    if inner is not None:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        if len(value) > maximum:
            raise RequestError(f"Field '{where}' has {len(value)} entries; at most {maximum} are allowed.")
        return tuple(_convert(inner, entry, f"{where}[{i}]", {}, limits) for i, entry in enumerate(value))
    return read(kind, value, limits, where) if record else _scalar(kind, value, where, rules, maximum)


def _form(kind: Any) -> _Form:
    """Whether a type may be None, the type without that, the form of what it is a tuple of, and whether it is a dataclass."""
    optional = get_origin(kind) in (Union, UnionType)
    kind = get_args(kind)[0] if optional else kind
    inner = _form(get_args(kind)[0]) if get_origin(kind) is tuple else None
    return optional, kind, inner, is_dataclass(kind)


def _scalar(kind: Any, value: Any, where: str, rules: Mapping[str, Any], maximum: float) -> Any:
    if kind is bytes:
        return _bytes(value, where, maximum)
    if kind is str:
        return _text(value, where, rules, maximum)
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(where, "true or false", value)
        return value
    return _number(kind, value, where, -maximum if rules.get("symmetric") else rules.get("minimum", -math.inf), maximum)


def _bytes(value: Any, where: str, maximum: float) -> bytes:
    if not isinstance(value, str):
        raise _wrong(where, "base64 text", value)
    if len(value) > maximum / 3 * 4 + 4:
        raise RequestError(f"Field '{where}' is larger than the {maximum} bytes that are allowed.", status=413)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"Field '{where}' is not base64: {error}.") from error


def _text(value: Any, where: str, rules: Mapping[str, Any], maximum: float) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "text", value)
    if len(value) > maximum:
        raise RequestError(f"Field '{where}' has {len(value)} characters; at most {maximum} are allowed.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON may hold and no text does
        raise RequestError(f"Field '{where}' is not valid Unicode.") from error
    if "choices" in rules and value not in rules["choices"]:
        raise RequestError(f"Field '{where}' is {shown(value)}.", f"Use one of {', '.join(rules['choices'])}.")
    return value


def _number(kind: type, value: Any, where: str, minimum: float, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise _wrong(where, "a whole number" if kind is int else "a number", value)
    if not minimum <= value <= maximum:  # also false for NaN
        raise RequestError(f"Field '{where}' is {shown(value)}; it must lie between {minimum} and {maximum}.")
    return value if kind is int else float(value)


def _wrong(where: str, expected: str, value: Any) -> RequestError:
    return RequestError(f"Field '{where}' must be {expected}, not {shown(value)}.")


def shown(value: Any) -> str:
    """A refused value as a message may repeat it: short, and never a whole object."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN:  # Python refuses to print integers of thousands of digits
        return "a number far too large"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
