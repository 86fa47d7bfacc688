"""The policy's JSON Schema, for editors and other tools; ``docs/policy.schema.json`` is its published form.

The reader in ``elude.quality.policies.policy`` is stricter in one thing that a schema cannot say: it names the line.
"""

from __future__ import annotations

import json
from typing import Any

from elude.quality.dimensions import DIMENSIONS, HIGHER_IS_BETTER
from elude.quality.policies.policy import CLAIMS, SCHEMA_VERSION

_NUMBER: dict[str, Any] = {"type": "number"}
_POSITIVE: dict[str, Any] = {"type": "number", "minimum": 0}
_SEVERITY: dict[str, Any] = {"enum": ["fail", "warn"]}
_NAMES: dict[str, Any] = {"type": "array", "items": {"enum": list(DIMENSIONS)}, "uniqueItems": True}


def policy_schema() -> dict[str, Any]:
    """The schema (JSON Schema, draft 2020-12) of a policy read from TOML."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "elude gate policy",
        "description": "What a release has to prove. See docs/gate.md.",
    } | _table(
        {
            "schema_version": {"const": SCHEMA_VERSION},
            "name": {"type": "string", "pattern": r"\S"},
            "description": {"type": "string", "pattern": r"\S"},
            "baseline": _table({"required": {"type": "boolean", "default": True}}),
            "suite": _table(
                {
                    "min_images": {"type": "integer", "minimum": 1, "default": 1},
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                }
            ),
            "dimensions": _table({name: _dimension(name) for name in DIMENSIONS}) | {"minProperties": 1},
            "presets": _table({"severity": _SEVERITY | {"default": "warn"}, "exempt": _NAMES}),
            "score": _table(
                {
                    "min": _NUMBER,
                    "severity": _SEVERITY | {"default": "fail"},
                    "allow_partial": {"type": "boolean", "default": False},
                    "weights": _table(dict.fromkeys(DIMENSIONS, _POSITIVE)),
                },
                ["min"],
            ),
            "lossless": _table(
                {
                    "claims": _table(dict.fromkeys(CLAIMS, _POSITIVE), list(CLAIMS)),
                    "disentangled": _tolerances(),
                    "served": _tolerances(),
                },
                ["claims"],
            ),
        },
        ["schema_version", "name", "dimensions", "lossless"],
    )


def schema_bytes() -> bytes:
    """The published file."""
    return (json.dumps(policy_schema(), indent=2) + "\n").encode()


def _dimension(name: str) -> dict[str, Any]:
    limit = "min" if HIGHER_IS_BETTER[name] else "max"
    rules: dict[str, Any] = {
        limit: _NUMBER,
        "max_drop": _POSITIVE,
        "max_drop_relative": {"type": "number", "minimum": 0, "maximum": 1},
        "severity": _SEVERITY | {"default": "fail"},
        "required": {"type": "boolean", "default": True},
        "decide_on": {"enum": ["point", "bound"], "default": "point"},
    }
    return _table(rules) | {"anyOf": [{"required": [key]} for key in (limit, "max_drop", "max_drop_relative")]}


def _tolerances() -> dict[str, Any]:
    return _table({**dict.fromkeys(DIMENSIONS, _POSITIVE), "default": _POSITIVE | {"default": 0}, "exempt": _NAMES})


def _table(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False} | (
        {"required": required} if required else {}
    )
