"""The form of each answer as JSON Schema, for ``docs/openapi.json``; the tests hold every answer of the service
against it.
"""

from __future__ import annotations

from typing import Any

_Schema = dict[str, Any]
_TEXT: _Schema = {"type": "string"}
_NUMBER: _Schema = {"type": "number"}
_WHOLE: _Schema = {"type": "integer"}
_FLAG: _Schema = {"type": "boolean"}


def _ref(name: str) -> _Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: _Schema) -> _Schema:
    return {"type": "array", "items": items}


def _or_null(schema: _Schema) -> _Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _closed(properties: dict[str, _Schema], *optional: str) -> _Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_ROW = {
    "id": _TEXT,
    "index": _WHOLE,
    "layer": _TEXT,
    "unit": _WHOLE,
    "part": _WHOLE,
    "rho": _or_null(_NUMBER),
    "omega": _NUMBER,
    "active": _NUMBER | {"description": "fraction of the probing instances where it is above 0"},
    "mean": _NUMBER,
    "maximum": _NUMBER,
    "ms_score": _or_null(_NUMBER),
    "share": _NUMBER | {"description": "mean share of the unit's weights"},
    "name": _or_null(_TEXT),
    "name_method": _or_null(_TEXT),
    "name_score": _or_null(_NUMBER),
}
_PROBABILITIES = {"type": "object", "additionalProperties": _NUMBER, "description": "by label, most probable first"}
_EMBEDDING = _closed({"embedding": _list(_NUMBER)})
_VALUES = _closed(
    {"values": {"type": "object", "additionalProperties": _NUMBER, "description": "of a regression, by label"}}
)
_MAP = _closed(
    {
        "rows": _WHOLE,
        "columns": _WHOLE,
        "maximum": _NUMBER | {"description": "the activation that 255 stands for"},
        "values": _list(_list({"type": "integer", "minimum": 0, "maximum": 255})),
        "png": {"type": "string", "contentEncoding": "base64"},
    },
    "values",
    "png",
)
_INSPECTED = _closed(
    {
        "id": _TEXT,
        "index": _WHOLE,
        "name": _or_null(_TEXT),
        "activation": _NUMBER | {"description": "largest over the tokens"},
        "token": _WHOLE | {"description": "where it is largest"},
        "share": _ROW["share"],
        "concept": _or_null(_closed({"id": _TEXT, "name": _or_null(_TEXT)})),
        "effect": _NUMBER | {"description": "logit of the target minus that logit with this sub-unit ablated"},
        "unit": _closed({"id": _TEXT, "parts": _WHOLE, "activation": _NUMBER}),
        "heat_map": _ref("HeatMap"),
    },
    "share",
    "effect",
    "heat_map",
)
_CONCEPT_FACTS = {
    "id": _TEXT,
    "name": _or_null(_TEXT),
    "members": _WHOLE,
    "agreement": _NUMBER | {"description": "mean correlation of its sub-units with their mean"},
    "purity": _or_null(_NUMBER) | {"description": "part of the images where it is strongest that are of one class"},
    "typical": _TEXT | {"description": "its most typical sub-unit: 'feature' has the images"},
}
_CONCEPT = _closed(_CONCEPT_FACTS)
_ACTIVE_CONCEPT = _closed(
    _CONCEPT_FACTS
    | {"relative": _NUMBER | {"description": "mean over its sub-units of the activation over the largest known one"}}
)
_RELATIVE = _closed(
    {"id": _TEXT, "name": _or_null(_TEXT), "members": _WHOLE}
    | {"correlation": _NUMBER | {"description": "of their strengths over the atlas images"}}
)
_CHECK = _closed({"max_residual": _NUMBER, "max_unit": _NUMBER})
_EFFECTS = _closed({"target": _TEXT, "measured": _WHOLE, "method": _TEXT})
_EDIT = _closed({"id": _TEXT, "action": _TEXT, "value": _or_null(_NUMBER), "patches": _WHOLE, "name": _or_null(_TEXT)})
_EXAMPLE = _closed(
    {
        "image": _TEXT,
        "label": _or_null(_TEXT),
        "token": _WHOLE,
        "activation": _NUMBER,
        "png": {"type": "string", "contentEncoding": "base64"},
    }
)
_FOUND = _closed(_ROW | {"activation": _NUMBER, "relative": _NUMBER}, "activation", "relative")

SHARED: dict[str, _Schema] = {
    "Prediction": {"anyOf": [_EMBEDDING, _VALUES, _PROBABILITIES]},
    "HeatMap": _MAP,
    "Refusal": {
        "type": "object",
        "properties": {"code": _WHOLE, "type": _TEXT, "message": _TEXT},
        "required": ["code", "message"],
    },
}
ANSWERS: dict[str, _Schema] = {
    "predict": _ref("Prediction"),
    "inspect": _closed(
        {
            "prediction": _ref("Prediction"),
            "effects": _EFFECTS,
            "concepts": _list(_ACTIVE_CONCEPT),
            "sub_units": _list(_INSPECTED),
            "sum_check": {
                "type": "object",
                "additionalProperties": _CHECK,
                "description": "by layer: are sub-units adding up to units?",
            },
        },
        "effects",
    ),
    "steer": _closed(
        {
            "unsteered": _ref("Prediction"),
            "steered": _ref("Prediction"),
            "edits": _list(_EDIT),
            "change": _PROBABILITIES | {"description": "steered minus unsteered, by label"},
            "max_output_change": _NUMBER,
        },
        "unsteered",
        "change",
        "max_output_change",
    ),
    "feature": _closed(_ROW | {"concept": _or_null(_CONCEPT), "siblings": _list(_TEXT), "examples": _list(_EXAMPLE)}),
    "concept": _closed(
        _CONCEPT_FACTS
        | {
            "sub_units": _list(_closed({"id": _TEXT, "name": _or_null(_TEXT)})),
            "examples": _list(_EXAMPLE) | {"description": "their activation is the strength, from 0 to 1"},
            "histogram": _or_null(
                _list(_WHOLE) | {"description": "atlas images by strength, in bins of equal width from 0 to 1"}
            ),
            "similar": _list(_RELATIVE),
            "opposite": _list(_RELATIVE),
        }
    ),
    "search": _closed({"query": _or_null(_TEXT), "concepts": _list(_CONCEPT), "sub_units": _list(_FOUND)}),
    "describe": {
        "type": "object",
        "properties": {
            "source": {"type": "object"},
            "artefact_sha256": _TEXT,
            "schema_version": _WHOLE,
            "versions": {"type": "object"},
            "parameters": _WHOLE,
            "expansion_factor": _NUMBER,
            "layers": _list(_closed({"name": _TEXT, "kind": _TEXT, "units": _WHOLE, "sub_units": _WHOLE})),
            "labels": _or_null(_list(_TEXT)),
            "preprocess": {"type": "object"},
            "operations": _list(_TEXT),
            "limits": {"type": "object"},
            "steering": _TEXT,
            "presets": {"type": "object", "additionalProperties": _list(_EDIT)},
            "preset": _TEXT,
            "admission": _closed(
                {
                    "admitted": _FLAG,
                    "reason": _TEXT,
                    "required": _FLAG,
                    "signature": _TEXT,
                    "free_steering": _FLAG,
                    "presets": _list(_TEXT),
                    "refused_presets": {"type": "object", "additionalProperties": _TEXT},
                    "signed_by": _TEXT,
                    "valid_until": _TEXT,
                },
                "signed_by",
                "valid_until",
            ),
            "files": {"type": "object", "additionalProperties": _TEXT, "description": "sha256 by file"},
            "card": _TEXT,
            "verdict": {"type": "object"},
        },
        "required": [
            "source",
            "artefact_sha256",
            "layers",
            "operations",
            "limits",
            "steering",
            "presets",
            "admission",
            "files",
        ],
        "additionalProperties": False,
    },
}
