"""The policy's JSON Schema, for editors and other tools; ``docs/policy.schema.json`` is its published form.

It follows from the declaration that the reader uses too; the reader is stricter only in naming the line.
"""

from __future__ import annotations

import json
from typing import Any

from elude.quality.dimensions import DIMENSIONS
from elude.quality.policies import declaration
from elude.quality.policies.declaration import SCHEMA_VERSION, Keys, factors_of, limit_key, rule_keys


def policy_schema() -> dict[str, Any]:
    """The schema (JSON Schema, draft 2020-12) of a policy read from TOML."""
    tolerances = _table(declaration.tolerance_keys())
    lossless = {
        "claims": _table(declaration.CLAIM_KEYS),
        "disentangled": tolerances,
        "served": tolerances,
    }
    tables = {
        "schema_version": {"const": SCHEMA_VERSION},
        "baseline": _table(declaration.BASELINE),
        "suite": _table(declaration.SUITE),
        "dimensions": _object({name: _dimension(name) for name in DIMENSIONS}) | {"minProperties": 1},
        "classes": _table(declaration.CLASSES),
        "presets": _table(declaration.PRESETS),
        "score": _table(declaration.SCORE, {"weights": _table(declaration.WEIGHTS)}),
        "lossless": _object(lossless, ["claims"]),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "elude gate policy",
        "description": "What a release has to prove. See docs/gate.md.",
    } | _table(declaration.TOP, tables, ["schema_version", "dimensions", "lossless"])


def schema_bytes() -> bytes:
    """The published file."""
    return (json.dumps(policy_schema(), indent=2) + "\n").encode()


def _dimension(name: str) -> dict[str, Any]:
    checks = [limit_key(name), "max_drop", "max_drop_relative"]
    some_check = {"anyOf": [{"required": [key]} for key in checks]}
    factors = {factor: _table(rule_keys(name)) | some_check for factor in factors_of(name)}
    if not factors:
        return _table(rule_keys(name)) | some_check
    table = _table(rule_keys(name), {"factors": _object(factors) | {"minProperties": 1}})
    return table | {"anyOf": [{"required": [key]} for key in (*checks, "factors")]}


def _table(keys: Keys, more: dict[str, Any] | None = None, required: list[str] | None = None) -> dict[str, Any]:
    needed = [*(required or []), *(name for name, key in keys.items() if key.required)]
    return _object({name: key.schema() for name, key in keys.items()} | (more or {}), needed)


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False} | (
        {"required": required} if required else {}
    )
