"""The keys of a policy, declared once: the reader (``policy.py``) and the JSON Schema (``schema.py``) follow from it.

A rule that cannot fail is refused here, wherever it comes from: a limit at the end of the dimension's range, or an
allowed drop as wide as the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from elude.quality.dimensions import DIMENSIONS, GATED_FACTORS, HIGHER_IS_BETTER, RANGES
from elude.quality.toml_tables import Table

SCHEMA_VERSION = 1
CLAIMS = ("sums", "rewrite", "runtime")


@dataclass(frozen=True)
class Key:
    """One key of a table.

    Attributes:
        kind: of its value.
        default: of a key that may be left out.
        required: whether it may not.
        low, high: ends of a number, which are allowed.
        above, below: ends of a number, which are not: there, the rule could not fail, or nothing could pass it.
        choices: of a choice.
    """

    kind: Literal["number", "integer", "boolean", "text", "choice", "names", "sha256"]
    default: Any = None
    required: bool = False
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    choices: tuple[str, ...] = ()

    def read(self, table: Table, name: str) -> Any:
        """The value in ``table``; UsageError with file and line for a wrong one."""
        if not self.required and not table.has(name):
            return self.default
        if self.kind == "number":
            return self._number(table, name)
        readers: dict[str, Callable[[], Any]] = {
            "integer": lambda: table.integer(name, low=int(self.low)),
            "choice": lambda: table.choice(name, self.choices),
            "names": lambda: table.texts(name, DIMENSIONS),
            "boolean": lambda: table.boolean(name, False),
            "text": lambda: table.text(name),
            "sha256": lambda: table.sha256(name),
        }
        return readers[self.kind]()

    def _number(self, table: Table, name: str) -> float:
        value = table.number(name, low=self.low, high=self.high)
        if not self.above < value < self.below:
            end = self.above if value <= self.above else self.below
            raise table.error(
                name,
                f"{value:g} makes a rule that cannot fail, or that nothing can pass: the measure ends at {end:g}",
                f"Give a number {'above' if value <= self.above else 'below'} {end:g}.",
            )
        return value

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the value."""
        if self.kind == "choice":
            schema: dict[str, Any] = {"enum": list(self.choices)}
        elif self.kind == "names":
            return {"type": "array", "items": {"enum": list(DIMENSIONS)}, "uniqueItems": True}
        elif self.kind == "sha256":
            schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
        elif self.kind == "text":
            schema = {"type": "string", "pattern": r"\S"}
        else:
            schema = {"type": self.kind}
        ends = {
            "minimum": self.low,
            "maximum": self.high,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
        }
        schema |= {
            name: int(end) if self.kind == "integer" else end for name, end in ends.items() if math.isfinite(end)
        }
        return schema if self.default is None else schema | {"default": self.default}


Keys = Mapping[str, Key]


def read(table: Table, keys: Keys) -> dict[str, Any]:
    """The values of all keys of a table."""
    return {name: key.read(table, name) for name, key in keys.items()}


def severity(default: str = "fail") -> Key:
    """What a violation counts as."""
    return Key("choice", default, choices=("fail", "warn"))


TOP: Keys = {"name": Key("text", required=True), "description": Key("text")}
BASELINE: Keys = {"required": Key("boolean", True)}
SUITE: Keys = {
    "min_images": Key("integer", 1, low=1),
    "sha256": Key("sha256"),
    "budget": Key("integer", low=1),
    "seed": Key("integer", 0, low=0),
}
PRESETS: Keys = {"severity": severity("warn"), "exempt": Key("names", ())}
SCORE: Keys = {
    "min": Key("number", required=True),
    "severity": severity(),
    "allow_partial": Key("boolean", False),
}
CLASSES: Keys = {
    "max_drop": Key("number", required=True, above=0.0, below=1.0),
    "min_images": Key("integer", 1, low=1),
    "severity": severity(),
    "decide_on": Key("choice", "bound", choices=("point", "bound")),
}
WEIGHTS: Keys = dict.fromkeys(DIMENSIONS, Key("number", low=0.0))
CLAIM_KEYS: Keys = dict.fromkeys(CLAIMS, Key("number", required=True, low=0.0))


def limit_key(dimension: str) -> str:
    """``min`` where higher is better, else ``max``."""
    return "min" if HIGHER_IS_BETTER[dimension] else "max"


def rule_keys(dimension: str) -> Keys:
    """The keys of the rule of a dimension, or of one of its factors."""
    low, high = RANGES[dimension]
    higher = HIGHER_IS_BETTER[dimension]
    limit = Key("number", above=low, high=high) if higher else Key("number", low=low, below=high)
    whole = 1.0 if higher else math.inf  # a drop by all of the value leaves 0, which every model reaches
    return {
        limit_key(dimension): limit,
        "max_drop": Key("number", low=0.0, below=high - low),
        "max_drop_relative": Key("number", low=0.0, high=1.0, below=whole),
        "severity": severity(),
        "required": Key("boolean", True),
        "decide_on": Key("choice", "point", choices=("point", "bound")),
        "min_images": Key("integer", low=1),
    }


def tolerance_keys() -> Keys:
    """The largest differences between the original and a rewritten form, by dimension and for all others."""
    widths = {dimension: high - low for dimension, (low, high) in RANGES.items()}
    named = {dimension: Key("number", low=0.0, below=width) for dimension, width in widths.items()}
    return named | {"default": Key("number", 0.0, low=0.0, below=1.0), "exempt": Key("names", ())}


def factors_of(dimension: str) -> tuple[str, ...]:
    """The factors that can have a rule of their own."""
    return GATED_FACTORS.get(dimension, ())
