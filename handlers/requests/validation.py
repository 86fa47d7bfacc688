"""A strict reader of JSON objects into dataclasses: unknown fields, wrong types, NaN and values out of range name
the field.

Supports what the requests need: bytes (as base64), str, int, float, bool, optional values, and tuples of dataclasses.
A field's metadata may hold ``minimum``, ``maximum``, ``choices``, ``limit``, the attribute of the limits that is its
maximum, and ``symmetric``: the minimum is minus the maximum. Each class is compiled once into nested functions.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from elude.handlers.errors import RequestError

_T = TypeVar("_T")
_Reader = Callable[[Any], Any]
_MAX_SHOWN = 60  # characters of a refused value that a message repeats
_WRAPPING = 1024  # characters of base64 beyond what the bytes need, before white space is removed
_COMPILED = 64  # classes and limits; a server has few


class _Fault(Exception):
    """What is wrong with a value, said of the place it is at; the place grows as the fault leaves the objects around
    it.
    """

    def __init__(self, say: Callable[[str], str], remedy: str = "", status: int = 400) -> None:
        super().__init__()
        self._say, self._remedy, self._status = say, remedy, status
        self._steps: list[str] = []

    def inside(self, step: str) -> _Fault:
        """The same fault, seen from the object or list that holds the value."""
        self._steps.append(step)
        return self

    def error(self, where: str) -> RequestError:
        steps = [*([where] if where else []), *reversed(self._steps)]
        place = "".join(step if i == 0 or step.startswith("[") else f".{step}" for i, step in enumerate(steps))
        return RequestError(self._say(place), self._remedy, self._status)


def read(cls: type[_T], value: Any, limits: Any, where: str = "") -> _T:
    """Make a ``cls`` from a JSON object.

    Args:
        cls: a dataclass.
        value: what JSON gave.
        limits: a frozen object with the attributes that ``limit`` metadata name.
        where: path of the object within the request, for messages.

    Raises:
        RequestError: naming the field.
    """
    try:
        return cast(_T, _object(cast(Any, cls), limits)(value))
    except _Fault as fault:
        raise fault.error(where) from fault


@lru_cache(_COMPILED)
def _object(cls: type[Any], limits: Any) -> _Reader:
    hints = get_type_hints(cls)
    readers = {entry.name: _value(hints[entry.name], entry.metadata, limits) for entry in fields(cls)}
    required = [entry.name for entry in fields(cls) if entry.default is MISSING]

    def read_object(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _Fault(lambda at: f"{at or 'The request'} must be a JSON object, not {shown(value)}.")
        if not value.keys() <= readers.keys():
            name = str(next(name for name in value if name not in readers))
            raise _Fault(lambda at: f"Field {shown(at)} is unknown.", f"Known fields: {', '.join(readers)}.").inside(
                name
            )
        for name in required:
            if name not in value:
                raise _Fault(lambda at: f"Field '{at}' is missing.").inside(name)
        values = {}
        for name, entry in value.items():
            try:
                values[name] = readers[name](entry)
            except _Fault as fault:
                fault.inside(name)
                raise
        return cls(**values)

    return read_object


def _value(kind: Any, rules: Mapping[str, Any], limits: Any) -> _Reader:
    if get_origin(kind) in (Union, UnionType):
        inner = _value(get_args(kind)[0], rules, limits)
        return lambda value: None if value is None else inner(value)
    maximum = getattr(limits, rules["limit"]) if "limit" in rules else rules.get("maximum", math.inf)
    if get_origin(kind) is tuple:
        return _list(_value(get_args(kind)[0], {}, limits), maximum)
    if is_dataclass(kind):
        return _object(cast(Any, kind), limits)
    if kind in (bytes, str):
        return _bytes(maximum) if kind is bytes else _text(rules, maximum)
    minimum = -maximum if rules.get("symmetric") else rules.get("minimum", -math.inf)
    return _truth if kind is bool else _number(kind is int, minimum, maximum)


def _list(inner: _Reader, maximum: float) -> _Reader:
    def read_list(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong("a list", value)
        if len(value) > maximum:
            raise _Fault(lambda at: f"Field '{at}' has {len(value)} entries; at most {maximum} are allowed.")
        entries = []
        try:
            for entry in value:
                entries.append(inner(entry))
        except _Fault as fault:
            fault.inside(f"[{len(entries)}]")
            raise
        return tuple(entries)

    return read_list


def _bytes(maximum: float) -> _Reader:
    def read_bytes(value: Any) -> bytes:
        if isinstance(value, bytes):  # a field of a form; JSON holds none
            return value
        if not isinstance(value, str):
            raise _wrong("base64 text", value)
        try:
            return base64_bytes(value, maximum)
        except OverflowError as error:
            raise _Fault(
                lambda at: f"Field '{at}' is larger than the {maximum} bytes that are allowed.", status=413
            ) from error
        except ValueError as error:
            reason = str(error)
            raise _Fault(lambda at: f"Field '{at}' is not base64: {reason}.") from error

    return read_bytes


def base64_bytes(text: str, maximum: float) -> bytes:
    """What base64 text holds, which may be wrapped into lines or stand in a data URL (RFC 2397).

    Raises:
        OverflowError: it holds more than ``maximum`` bytes.
        ValueError: it is not base64.
    """
    if text.startswith("data:"):
        _, encoding, text = text.partition(";base64,")
        if not encoding:
            raise ValueError("the data URL is not in base64")
    if len(text) > 2 * maximum + _WRAPPING:
        raise OverflowError
    if any(space in text for space in " \n\r\t"):
        text = "".join(text.split())
    if len(text) > maximum / 3 * 4 + 4:
        raise OverflowError
    return base64.b64decode(text, validate=True)


def _text(rules: Mapping[str, Any], maximum: float) -> _Reader:
    choices = rules.get("choices")

    def read_text(value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong("text", value)
        if len(value) > maximum:
            raise _Fault(lambda at: f"Field '{at}' has {len(value)} characters; at most {maximum} are allowed.")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON may hold and no text does
                raise _Fault(lambda at: f"Field '{at}' is not valid Unicode.") from error
        if choices is not None and value not in choices:
            raise _Fault(lambda at: f"Field '{at}' is {shown(value)}.", f"Use one of {', '.join(choices)}.")
        return value

    return read_text


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def _number(whole: bool, minimum: float, maximum: float) -> _Reader:
    kinds: Any = int if whole else (int, float)

    def read_number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _wrong("a whole number" if whole else "a number", value)
        if not minimum <= value <= maximum:  # also false for NaN
            raise _Fault(lambda at: f"Field '{at}' is {shown(value)}; it must lie between {minimum} and {maximum}.")
        return value if whole else float(value) + 0.0  # −0.0 is 0.0

    return read_number


def _wrong(expected: str, value: Any) -> _Fault:
    return _Fault(lambda at: f"Field '{at}' must be {expected}, not {shown(value)}.")


def shown(value: Any) -> str:
    """A refused value as a message may repeat it: short, and never a whole object."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if (
        isinstance(value, int) and abs(value) >= 10**_MAX_SHOWN
    ):  # Python refuses to print integers of thousands of digits
        return "a number far too large"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
