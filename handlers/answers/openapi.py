"""The OpenAPI description of the served operations, made from the dataclasses that the validator reads.

``docs/openapi.json`` is its output:

python -m elude.handlers.answers.openapi docs/openapi.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from elude.handlers.answers.openapi_paths import paths, ref
from elude.handlers.answers.schema import ANSWERS, SHARED
from elude.handlers.requests.number_tensors import DATATYPES
from elude.handlers.requests.schema import OPERATIONS, EditRequest
from elude.handlers.settings import Limits

_Schema = dict[str, Any]
_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def openapi(limits: Limits = Limits()) -> _Schema:
    """The document, OpenAPI 3.1, for a server with these limits."""
    schemas: _Schema = {"Edit": _object(EditRequest, limits)}
    for name, kind in OPERATIONS.items():
        schema = _object(kind, limits)
        schema["properties"] = {"op": {"const": name, "description": "Left out, it is 'predict'."}} | schema[
            "properties"
        ]
        schema["required"] = ([] if name == "predict" else ["op"]) + schema["required"]
        schemas[f"{kind.__name__}Request"], schemas[f"{kind.__name__}Answer"] = schema, ANSWERS[name]
    schemas |= SHARED | _kserve(limits)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "elude: an image model that explains itself",
            "version": "1",
            "description": "Limits are the defaults; 'describe' gives a server's own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "security": [{"token": []}],
        "paths": paths(limits.max_bytes),
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def text() -> str:
    """The document as the file holds it."""
    return json.dumps(openapi(), indent=1, ensure_ascii=False) + "\n"


def _object(kind: type[Any], limits: Limits) -> _Schema:
    hints = get_type_hints(kind)
    properties = {entry.name: _field(entry, hints[entry.name], limits) for entry in fields(kind)}
    required = [entry.name for entry in fields(kind) if entry.default is MISSING]
    summary = (kind.__doc__ or "").strip().splitlines()[0]
    return {
        "type": "object",
        "description": summary,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _field(entry: Field[Any], kind: Any, limits: Limits) -> _Schema:
    rules = entry.metadata
    schema = _kind(kind, rules, limits)
    if "about" in rules:
        schema["description"] = rules["about"]
    if entry.default is not MISSING and entry.default is not None:
        schema["default"] = entry.default
    return schema


def _kind(kind: Any, rules: Mapping[str, Any], limits: Limits) -> _Schema:
    if get_origin(kind) in (Union, UnionType):
        return {"anyOf": [_kind(get_args(kind)[0], rules, limits), {"type": "null"}]}
    maximum: Any = getattr(limits, rules["limit"]) if "limit" in rules else rules.get("maximum")
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _kind(get_args(kind)[0], {}, limits), "maxItems": maximum}
    if is_dataclass(kind):
        return ref("Edit")
    if kind is bytes:
        return {"type": "string", "contentEncoding": "base64", "maxLength": int(maximum / 3 * 4 + 4)}
    schema: _Schema = {"type": _KINDS[kind]}
    if "choices" in rules:
        return schema | {"enum": list(rules["choices"])}
    if maximum is not None:
        schema["maxLength" if kind is str else "maximum"] = maximum
    minimum = -maximum if rules.get("symmetric") else rules.get("minimum")
    return schema if minimum is None else schema | {"minimum": minimum}


def _kserve(limits: Limits) -> _Schema:
    image = {"type": "string", "contentEncoding": "base64"}
    encoded = {"type": "object", "properties": {"b64": image}, "required": ["b64"], "additionalProperties": False}
    instance = {
        "anyOf": [
            image,
            encoded,
            {
                "type": "object",
                "description": "one of the requests above; 'image' (or 'data', 'image_bytes') may be {'b64': …}",
            },
        ]
    }
    instances = {"type": "array", "items": instance, "minItems": 1, "maxItems": limits.max_instances}
    tensor = {
        "type": "object",
        "properties": {
            "name": {"enum": ["image", "request"], "description": "base64 images, or requests as JSON text"},
            "datatype": {"const": "BYTES"},
            "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 1},
            "data": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": limits.max_instances},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    numbers = {
        "type": "object",
        "description": "images of a model of many channels",
        "properties": {
            "name": {"const": "image"},
            "datatype": {"enum": list(DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 3, "maxItems": 4},
            "data": {"type": "array", "description": "numbers, flat or nested", "minItems": 1},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    output = {
        "type": "object",
        "properties": {
            "name": {"enum": ["labels", "probabilities", "answer"]},
            "datatype": {"enum": ["BYTES", "FP32"]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    asked = {
        "inputs": {"type": "array", "items": {"anyOf": [tensor, numbers]}, "minItems": 1, "maxItems": 1},
        "id": {"type": "string", "maxLength": 200},
        "parameters": {"type": "object", "description": "'op' and its options, for all elements"},
        "outputs": {"type": "array", "description": "ignored: all are given"},
    }
    given = {"model_name": {"type": "string"}, "id": {"type": "string"}, "outputs": {"type": "array", "items": output}}
    return {
        "V1Request": {
            "type": "object",
            "properties": {"instances": instances},
            "required": ["instances"],
            "additionalProperties": False,
        },
        "V1Answer": {"type": "object", "properties": {"predictions": {"type": "array"}}, "required": ["predictions"]},
        "V2Request": {"type": "object", "properties": asked, "required": ["inputs"], "additionalProperties": False},
        "V2Answer": {"type": "object", "properties": given, "required": ["model_name", "outputs"]},
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
