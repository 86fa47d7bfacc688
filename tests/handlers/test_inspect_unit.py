"""Inspecting the parts of one unit alone: by activation, by effect, and what is refused.

Worked by hand on the model of test_service.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _worked import TEXT, WorkedSession, make_bundle

from elude.handlers.requests.calls import Call
from elude.handlers.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(make_bundle(tmp_path / "b"), WorkedSession())


def inspect(service: Service, **fields: Any) -> Any:
    return service.answer([Call({"op": "inspect", "image": TEXT, "heat_map": "none", **fields})])[0]


def ids(answer: Any) -> list[str]:
    assert answer.status == 200, answer.body
    return [entry["id"] for entry in json.loads(answer.body)["sub_units"]]


def test_only_the_parts_of_the_unit_in_the_same_order(service: Service) -> None:
    assert ids(inspect(service)) == ["fc/u0.s0", "fc/u1.s1", "fc/u1.s0"]
    assert ids(inspect(service, unit="fc/u1")) == ["fc/u1.s1", "fc/u1.s0"]
    assert ids(inspect(service, unit="fc/u0")) == ["fc/u0.s0"]
    assert ids(inspect(service, unit="fc/u1", top_k=1)) == ["fc/u1.s1"]


def test_effects_are_measured_on_those_parts_alone(service: Service) -> None:
    answer = inspect(service, unit="fc/u1", by="effect", target="odd")
    assert set(ids(answer)) == {"fc/u1.s0", "fc/u1.s1"}


@pytest.mark.parametrize(
    "unit", ["fc/u2", "fc/u01", "fc/u-1", "fc/u1.s0", "other/u0", "fc", "", "fc/u99999999999", "fc/u²"]
)
def test_an_unknown_unit_is_refused_by_name(service: Service, unit: str) -> None:
    answer = inspect(service, unit=unit)
    assert answer.status == 404
    assert b"'unit'" in answer.body
