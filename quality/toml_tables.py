"""Strict reading of TOML: every refusal names the file, the key and, where the text shows it, the line.

``tomllib`` keeps no positions, so the line is found by scanning the text for the table header and the key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from elude.handlers.errors import UsageError
from elude.handlers.files import parse_toml

KeyPath = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)([^\[\]]+)\]\]?")
_ASSIGNMENT = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """First line (from 1) of each table and key of a TOML text; elements of an array of tables carry their index."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _split(header[2])
            if header[1] == "[[":
                index = counts.get(table, 0)
                counts[table] = index + 1
                table = (*table, index)
            path = table
        elif assignment := _ASSIGNMENT.match(line):
            path = (*table, *_split(assignment[1]))
        else:
            continue
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], number)
    return lines


def _split(dotted: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


class Table:
    """One table of a TOML file, read key by key; ``finish`` refuses the keys nobody asked for."""

    def __init__(self, file: str, lines: Mapping[KeyPath, int], path: KeyPath, data: Mapping[str, Any]) -> None:
        self._file, self._lines, self._path, self._data = file, lines, path, data
        self._known: list[str] = []

    @classmethod
    def parse(cls, text: str, file: str) -> Table:
        """Parse a whole file.

        Raises:
            UsageError: if it is not TOML.
        """
        try:
            data = parse_toml(text)
        except ValueError as error:
            raise UsageError(f"{file} is not valid TOML: {error}.", "Correct that line.") from error
        return cls(file, key_lines(text), (), data)

    @property
    def keys(self) -> list[str]:
        return list(self._data)

    def error(self, key: str | None, message: str, remedy: str = "") -> UsageError:
        """A refusal of ``key`` (or of the table itself), placed in the file as exactly as the text allows."""
        path = self._path if key is None else (*self._path, key)
        line = next((self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines), None)
        place = self._file if line is None else f"{self._file}:{line}"
        name = ".".join(str(part) for part in path)
        return UsageError(f"{place}: {name + ': ' if name else ''}{message}.", remedy)

    def has(self, key: str) -> bool:
        return self._asked(key)

    def number(self, key: str, *, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in [low, high]. Booleans are no numbers."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"must be a number, not {value!r}")
        if not math.isfinite(value) or not low <= value <= high:
            raise self.error(key, f"must be a finite number between {low:g} and {high:g}, not {value!r}")
        return float(value)

    def integer(self, key: str, default: int | None = None, *, low: int = 0) -> int:
        if default is not None and not self._asked(key):
            return default
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.error(key, f"must be a whole number of at least {low}, not {value!r}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        if not self._asked(key):
            return default
        value = self._value(key)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        if default is not None and not self._asked(key):
            return default
        value = self._value(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, f"must be a text that is not empty, not {value!r}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def texts(self, key: str, choices: Sequence[str]) -> tuple[str, ...]:
        """A list of distinct names out of ``choices``; empty when the key is absent."""
        if not self._asked(key):
            return ()
        value = self._value(key)
        if not isinstance(value, list) or any(item not in choices for item in value) or len(set(value)) != len(value):
            raise self.error(key, f"must be a list without repeats of names from {', '.join(choices)}, not {value!r}")
        return tuple(value)

    def day(self, key: str) -> date:
        value = self._value(key)
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.error(key, f"must be a date such as 2030-01-31, without quotes, not {value!r}")
        return value

    def sha256(self, key: str) -> str:
        value = self.text(key)
        if re.fullmatch(r"[0-9a-f]{64}", value) is None:
            raise self.error(key, f"must be a SHA-256 in 64 lower-case hexadecimal digits, not {value!r}")
        return value

    def table(self, key: str) -> Table:
        """The sub-table ``key``, empty when it is absent."""
        value = self._value(key) if self._asked(key) else {}
        if not isinstance(value, dict):
            raise self.error(
                key, f"must be a table, [{'.'.join(str(part) for part in (*self._path, key))}], not {value!r}"
            )
        return Table(self._file, self._lines, (*self._path, key), value)

    def tables(self, key: str) -> list[Table]:
        """The array of tables ``key``, empty when it is absent."""
        value = self._value(key) if self._asked(key) else []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(key, f"must be an array of tables, [[{key}]]")
        return [Table(self._file, self._lines, (*self._path, key, index), item) for index, item in enumerate(value)]

    def finish(self) -> None:
        """Refuse the first key that was never asked for: a misspelt rule must not silently check nothing."""
        for key in self._data:
            if key not in self._known:
                raise self.error(key, "is not a key of this table", f"Known here: {', '.join(self._known)}.")

    def _asked(self, key: str) -> bool:
        if key not in self._known:
            self._known.append(key)
        return key in self._data

    def _value(self, key: str) -> Any:
        if not self._asked(key):
            raise self.error(None, f"the key {key!r} is missing")
        return self._data[key]
