"""The published OpenAPI file is what the dataclasses say, is valid, and both requests and answers of the service fit
it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _worked import COLOUR, COLOUR_PORTRAIT, GREEN, PICTURE, TEXT, WorkedSession, with_presets
from jsonschema import Draft202012Validator, ValidationError
from openapi_spec_validator import OpenAPIV31SpecValidator

from elude.handlers.answers.openapi import openapi, text
from elude.handlers.errors import RequestError
from elude.handlers.requests.calls import Call
from elude.handlers.requests.forms import parse
from elude.handlers.requests.routes import ROUTES
from elude.handlers.service import Service
from elude.handlers.settings import Limits

DOCUMENT = openapi()
EDIT = {"id": "fc/u0.s0", "action": "scale", "value": 2.0}


def against(name: str, value: Any) -> None:
    Draft202012Validator({"$ref": f"#/components/schemas/{name}", **DOCUMENT}).validate(value)


def test_the_published_file_is_up_to_date() -> None:
    path = Path(__file__).parent.parent.parent / "docs/openapi.json"
    assert path.read_text(encoding="utf-8") == text(), "run: python -m elude.handlers.answers.openapi docs/openapi.json"


def test_it_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("Predict", {"image": TEXT, "top_k": 2}),
    ("Inspect", {"op": "inspect", "image": TEXT}),
    ("Inspect", {"op": "inspect", "image": TEXT, "by": "effect", "target": "odd", "heat_map": "png", "layer": None}),
    ("Inspect", {"op": "inspect", "image": TEXT, "heat_map": "none"}),
    ("Steer", {"op": "steer", "image": TEXT, "edits": [EDIT, {"id": "fc/u1.s0", "action": "ablate", "patches": 1}]}),
    ("Steer", {"op": "steer", "image": TEXT, "edits": [{"concept": "red thing", "action": "ablate"}]}),
    ("Steer", {"op": "steer", "image": TEXT, "preset": "no red"}),
    ("Steer", {"op": "steer", "image": TEXT, "preset": "no red", "compare": False}),
    ("Feature", {"op": "feature", "id": "fc/u1.s0"}),
    ("Concept", {"op": "concept", "id": "c0"}),
    ("Inspect", {"op": "inspect", "image": TEXT, "concept": "colour"}),
    ("Search", {"op": "search", "query": "thing", "limit": 1}),
    ("Search", {"op": "search", "image": TEXT}),
    ("Describe", {"op": "describe"}),
    ("V1", {"instances": [TEXT, {"b64": TEXT}, {"image": TEXT, "top_k": 1}]}),
    ("V2", {"id": "1", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}),
    ("V2", {"inputs": [{"name": "request", "datatype": "BYTES", "shape": [1], "data": ['{"op": "describe"}']}]}),
]


@pytest.mark.parametrize(("name", "body"), REQUESTS)
def test_requests_and_answers_fit(tmp_path: Path, name: str, body: dict[str, Any]) -> None:
    against(f"{name}Request", body)
    service = Service(
        with_presets(tmp_path / "b", concepts=(COLOUR, GREEN), portraits=(COLOUR_PORTRAIT,)).add(
            {"README.md": b"# card", "verdict.json": b"{}"}
        ),
        WorkedSession(),
    )
    answer = service.answer([Call(body)])[0]
    assert answer.status == 200
    against(f"{name}Answer", json.loads(answer.body))


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("Predict", {"image": 3}),
    ("Predict", {"image": TEXT, "top_k": 0}),
    ("Predict", {"image": TEXT, "top_k": 101}),
    ("Predict", {"image": TEXT, "x": 1}),
    ("Inspect", {"op": "inspect", "image": TEXT, "heat_map": "svg"}),
    ("Inspect", {"op": "inspect", "image": TEXT, "candidates": 65}),
    ("Steer", {"op": "steer", "image": TEXT, "edits": [EDIT] * 257}),
    ("Steer", {"op": "steer", "image": TEXT, "edits": [EDIT | {"value": 1e7}]}),
    ("Steer", {"op": "steer", "image": TEXT, "edits": [EDIT | {"patches": -1}]}),
    ("Steer", {"op": "steer", "image": TEXT, "edits": [], "compare": 0}),
    ("Feature", {"op": "feature"}),
    ("Concept", {"op": "concept", "examples": 2}),
    ("Search", {"op": "search", "query": "x" * 201}),
    ("V1", {"instances": []}),
    ("V2", {"inputs": []}),
]


@pytest.mark.parametrize(("name", "body"), WRONG)
def test_what_the_document_forbids_is_refused_and_the_other_way_round(name: str, body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        against(f"{name}Request", body)
    with pytest.raises(RequestError):
        parse(body)


def test_refusals_fit_and_limits_are_the_given_ones(tmp_path: Path) -> None:
    service = Service(with_presets(tmp_path / "b"), WorkedSession())
    against("Refusal", json.loads(service.answer([Call(PICTURE[:30])])[0].body))
    schemas = openapi(Limits(max_edits=3))["components"]["schemas"]
    assert schemas["SteerRequest"]["properties"]["edits"]["anyOf"][0]["maxItems"] == 3


def test_every_route_is_in_the_document() -> None:
    paths = openapi()["paths"]
    assert {(route.path, route.method.lower()) for route in ROUTES} == {
        (path, method) for path, item in paths.items() for method in item if method != "parameters"
    }
