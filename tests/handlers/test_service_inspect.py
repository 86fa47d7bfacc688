"""Looking: inspect, feature and search, against a model that is worked out by hand."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _worked import PICTURE, TEXT, Result, WorkedSession, ask, make_bundle
from PIL import Image

from elude.handlers.answers.forward_pass import Row, effects_of, run_rows
from elude.handlers.service import Service


def test_inspect_by_hand(service: Service) -> None:
    status, answer = ask(service, PICTURE, explain=True)
    assert status == 200
    first, second, third = answer["sub_units"]
    assert (first["id"], first["name"], first["activation"], first["token"]) == ("fc/u0.s0", "red thing", 1.0, 0)
    assert first["unit"] == {"id": "fc/u0", "parts": 1, "activation": 1.0}
    assert first["heat_map"] == {"rows": 2, "columns": 2, "maximum": 1.0, "values": [[255, 0], [0, 0]]}
    assert (second["id"], second["index"], second["token"], second["name"]) == ("fc/u1.s1", 2, 2, None)
    assert second["activation"] == pytest.approx(0.8)
    assert second["unit"]["activation"] == 1.0
    assert third["id"] == "fc/u1.s0"
    assert answer["sum_check"]["fc"]["max_residual"] < 1e-7
    assert answer["prediction"] == ask(service, PICTURE)[1]


def test_the_sum_check_can_fail(tmp_path: Path) -> None:
    class Wrong(WorkedSession):
        def run(self, *args: Any, **kwargs: Any) -> Result:
            result = super().run(*args, **kwargs)
            for values in result.sub_units.values():
                values[:, 1, 1] += 0.125
            return result

    assert (
        ask(Service(make_bundle(tmp_path / "b"), Wrong()), PICTURE, explain=True)[1]["sum_check"]["fc"]["max_residual"]
        == 0.125
    )


def test_heat_map_as_png(service: Service) -> None:
    answer = ask(service, {"op": "inspect", "image": TEXT, "heat_map": "png", "top_k": 1})[1]
    image = Image.open(io.BytesIO(base64.b64decode(answer["sub_units"][0]["heat_map"]["png"])))
    assert np.asarray(image).tolist() == [[255, 0], [0, 0]]


@pytest.mark.parametrize(
    "identifier", ["fc/u1.s2", "fc/u2.s0", "fc/u01.s0", "fc/u1", "fd/u0.s0", "fc/u٣.s0", "fc/u0.s0 ", "fc/u-1.s0", ""]
)
def test_unknown_sub_units(service: Service, identifier: str) -> None:
    status, answer = ask(service, {"op": "steer", "image": TEXT, "edits": [{"id": identifier, "action": "ablate"}]})
    assert (status, "edits[0].id" in answer["message"]) == (404, True)
    assert ask(service, {"op": "feature", "id": identifier})[0] == 404


def test_feature_and_search(service: Service) -> None:
    status, answer = ask(service, {"op": "feature", "id": "fc/u1.s0"})
    assert (status, answer["name"], answer["siblings"], answer["omega"]) == (200, "green thing", ["fc/u1.s1"], 0.5)
    assert base64.b64decode(answer["examples"][0]["png"]) == PICTURE
    assert [row["id"] for row in ask(service, {"op": "search", "query": "thing"})[1]["sub_units"]] == [
        "fc/u0.s0",
        "fc/u1.s0",
    ]


def test_inspect_by_effect_by_hand(service: Service) -> None:
    body = {"op": "inspect", "image": TEXT, "by": "effect", "target": "odd", "heat_map": "none"}
    status, answer = ask(service, body)
    assert status == 200
    # Logit of "odd" is the mean of blue = green + (blue - green): 0.05 of it from green, 0.2 from
    # the rest, nothing from red.
    assert [(row["id"], pytest.approx(row["effect"], abs=1e-7)) for row in answer["sub_units"]] == [
        ("fc/u1.s1", 0.2),
        ("fc/u1.s0", 0.05),
        ("fc/u0.s0", 0.0),
    ]
    assert answer["effects"] == {
        "target": "odd",
        "measured": 3,
        "method": "logit minus logit with the sub-unit ablated",
    }
    predicted = ask(service, {"op": "inspect", "image": TEXT, "by": "effect", "candidates": 1})[1]
    assert (predicted["effects"]["target"], predicted["effects"]["measured"]) == ("bright", 1)
    assert predicted["sub_units"][0]["effect"] == pytest.approx(0.25)
    assert ask(service, body | {"target": "none"})[0] == 404
    assert ask(service, body | {"by": "activation"})[0] == 400
    assert ask(service, body | {"candidates": 65})[0] == 400


def test_effects_are_measured_in_passes_of_bounded_size(tmp_path: Path) -> None:
    session = WorkedSession()
    row = run_rows(session, np.zeros((1, 3, 2, 2), np.float32), [()], True)[0]
    assert isinstance(row, Row)
    session.passes.clear()
    effects_of(session, np.zeros((1, 3, 2, 2), np.float32), (), [0, 1, 2] * 11, 0, row)
    assert [rows for rows, _ in session.passes] == [16, 16, 1]


def test_search_by_image(service: Service) -> None:
    status, answer = ask(service, {"op": "search", "image": TEXT})
    assert status == 200
    # Each was at most 1.0 on the probing images, so the quotient is the activation.
    assert [(row["id"], pytest.approx(row["relative"])) for row in answer["sub_units"]] == [
        ("fc/u0.s0", 1.0),
        ("fc/u1.s1", 0.8),
        ("fc/u1.s0", 0.2),
    ]
    for body in ({"op": "search"}, {"op": "search", "query": "x", "image": TEXT}):
        status, answer = ask(service, body)
        assert (status, answer["message"]) == (400, "A search needs either 'query' or 'image'.")
