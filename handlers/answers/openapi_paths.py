"""The paths of the OpenAPI document, from the one table of routes."""

from __future__ import annotations

import re
from typing import Any

from elude.handlers.requests.routes import BOTH, ROUTES, Route
from elude.handlers.requests.schema import OPERATIONS

_Schema = dict[str, Any]
_TEXT: _Schema = {"type": "string"}
_GET = {
    "ping": ("Health; needs the key.", "500", {"status": _TEXT}),
    "live": ("Whether the server runs.", "500", {"live": {"type": "boolean"}}),
    "ready": ("Whether it may be sent requests.", "503", {"ready": {"type": "boolean"}}),
    "status": (
        "The versions that are served, in TensorFlow Serving's form, and whether they may be sent requests.",
        "503",
        {"name": _TEXT, "ready": {"type": "boolean"}, "model_version_status": {"type": "array"}},
    ),
    "model_ready": (
        "Whether the model may be sent requests.",
        "503",
        {"name": _TEXT, "ready": {"type": "boolean"}},
    ),
    "models": ("Names of the models.", "4XX", {"models": {"type": "array", "items": _TEXT}}),
    "server": ("Name, version and extensions of the server.", "4XX", {"name": _TEXT}),
    "metadata": ("Tensors that inference takes and gives.", "4XX", {"name": _TEXT}),
}
_PARAMETERS = {
    "model": {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}},
    "version": {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "one of several side by side",
    },
    "label": {
        "name": "label",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "another name of a version, such as the stage of the store that it is in",
    },
}


def paths(max_bytes: int) -> _Schema:
    """Path items by path; ``max_bytes`` is the limit of an image."""
    items: _Schema = {}
    for route in ROUTES:
        item = items.setdefault(route.path, {"parameters": _parameters(route)})
        item[route.method.lower()] = _operation(route, max_bytes)
    return items


def _parameters(route: Route) -> list[_Schema]:
    return [_PARAMETERS[name] for name in re.findall(r"\{(\w+)\}", route.path)]


def _operation(route: Route, max_bytes: int) -> _Schema:
    operation = _post(route, max_bytes) if route.method == "POST" else _get(route)
    operation["operationId"] = route.asks + "".join(
        part.title() for part in re.findall(r"[a-z0-9]+", route.path.replace("{model}", "")) if part != route.asks
    )
    if route.fronts != BOTH:
        operation["description"] = "On the web front end only."
    return operation if route.key else operation | {"security": []}


def _post(route: Route, max_bytes: int) -> _Schema:
    version = {"/v1": "V1", "/v2": "V2"}.get(route.path[:3])
    if version:
        summary = (
            f"KServe {version} inference." if route.asks == "ask" else f"KServe {version}; each image is inspected."
        )
        content, answer = json_of(ref(f"{version}Request")), ref(f"{version}Answer")
    elif route.asks == "explain":
        summary = "The sub-units behind a prediction."
        content, answer = _images(max_bytes) | json_of(ref("InspectRequest")), ref("InspectAnswer")
    else:
        summary = "Any operation; raw image bytes are 'predict'."
        names = [kind.__name__ for kind in OPERATIONS.values()] + ["V1", "V2"]
        asked, given = ([ref(f"{name}{part}") for name in names] for part in ("Request", "Answer"))
        content, answer = _images(max_bytes) | json_of({"oneOf": asked}), {"anyOf": given}
    refused = {"description": "refused; the message says what to change", "content": json_of(ref("Refusal"))}
    broken = {"description": "the model or its worker failed", "content": json_of(ref("Refusal"))}
    responses = {"200": {"description": "answered", "content": json_of(answer)}, "4XX": refused, "5XX": broken}
    return {"summary": summary, "requestBody": {"required": True, "content": content}, "responses": responses}


def _images(max_bytes: int) -> _Schema:
    image = {"schema": {"type": "string", "contentMediaType": "image/*", "maxLength": max_bytes}}
    form = {
        "type": "object",
        "description": "one field is the image; the others are fields of the request, numbers and edits as JSON",
        "properties": {"image": {"type": "string", "contentMediaType": "image/*"}, "op": {"enum": list(OPERATIONS)}},
    }
    return {"application/octet-stream": image, "image/*": image, "multipart/form-data": {"schema": form}}


def _get(route: Route) -> _Schema:
    if route.asks == "metrics":
        answer: _Schema = {"description": "for Prometheus", "content": {"text/plain": {"schema": {"type": "string"}}}}
        return {"summary": "Counters and histograms.", "responses": {"200": answer}}
    if route.asks == "describe":
        answer = {"description": "described", "content": json_of(ref("DescribeAnswer"))}
        return {"summary": "What is served.", "responses": {"200": answer}}
    summary, status, properties = _GET[route.asks]
    schema = {"type": "object", "properties": properties}
    good, bad = {"description": "yes", "content": json_of(schema)}, {"description": "no, or refused"}
    return {"summary": summary, "responses": {"200": good, status: bad}}


def json_of(schema: _Schema) -> _Schema:
    """JSON content of that schema."""
    return {"application/json": {"schema": schema}}


def ref(name: str) -> _Schema:
    """A reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}
