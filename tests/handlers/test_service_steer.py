"""Steering by identifier, concept and preset, against a model that is worked out by hand."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from _worked import (
    LABELS,
    PICTURE,
    PRESET,
    TEXT,
    WorkedSession,
    ask,
    hashed_again,
    make_bundle,
    softmax,
    with_presets,
)

from elude.handlers.errors import BundleError, UsageError
from elude.handlers.service import Service
from elude.handlers.settings import Limits, Settings


def test_steer_by_hand(service: Service) -> None:
    edits = [{"id": "fc/u0.s0", "action": "scale", "value": -2}, {"id": "fc/u1.s1", "action": "ablate"}]
    status, answer = ask(service, {"op": "steer", "image": TEXT, "edits": edits})
    assert status == 200
    assert answer["unsteered"] == ask(service, PICTURE)[1]
    expected = softmax(0.5, -0.5, 0.05)
    assert [answer["steered"][name] for name in LABELS] == pytest.approx(expected, rel=1e-5)
    assert answer["change"]["black"] == pytest.approx(expected[0] - softmax(-0.25, 0.25, 0.25)[0], rel=1e-5)
    assert answer["edits"][0] == {"id": "fc/u0.s0", "action": "scale", "value": -2.0, "patches": 0, "name": "red thing"}
    assert answer["max_output_change"] == pytest.approx(0.75)


def test_steer_without_comparison_is_one_row(service: Service) -> None:
    body = {"op": "steer", "image": TEXT, "edits": [{"id": "fc/u0.s0", "action": "scale", "value": -2}]}
    both = ask(service, body)[1]
    assert isinstance(service.session, WorkedSession)
    service.session.passes.clear()
    assert ask(service, body | {"compare": False}) == (200, {"steered": both["steered"], "edits": both["edits"]})
    assert service.session.passes == [(1, False)]
    assert ask(service, body | {"compare": "no"})[1]["message"] == "Field 'compare' must be true or false, not 'no'."


def test_steer_without_edits_changes_nothing(service: Service) -> None:
    answer = ask(service, {"op": "steer", "image": TEXT, "edits": []})[1]
    assert answer["steered"] == answer["unsteered"]
    assert answer["max_output_change"] == 0


def test_a_sub_unit_is_edited_once(service: Service) -> None:
    edits = [{"id": "fc/u0.s0", "action": "ablate"}, {"id": "fc/u0.s0", "action": "scale", "value": 2}]
    status, answer = ask(service, {"op": "steer", "image": TEXT, "edits": edits})
    assert (status, "already edits" in answer["message"]) == (400, True)


def test_steer_by_concept(service: Service) -> None:
    by_id = {"op": "steer", "image": TEXT, "edits": [{"id": "fc/u0.s0", "action": "scale", "value": 2}]}
    by_name = {"op": "steer", "image": TEXT, "edits": [{"concept": "Red Thing", "action": "scale", "value": 2}]}
    assert ask(service, by_name) == ask(service, by_id)
    for edit, status in (
        ({"concept": "blue thing", "action": "ablate"}, 404),
        ({"concept": "red thing", "id": "fc/u0.s0", "action": "ablate"}, 400),
        ({"action": "ablate"}, 400),
    ):
        assert ask(service, {"op": "steer", "image": TEXT, "edits": [edit]})[0] == status


def test_a_concept_of_many_sub_units_counts_each(tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "b").root
    connection = sqlite3.connect(path / "catalogue.sqlite")
    connection.execute("UPDATE sub_units SET name='thing'")
    connection.commit()
    connection.close()
    bundle = hashed_again(path)
    body = {"op": "steer", "image": TEXT, "edits": [{"concept": "thing", "action": "ablate"}]}
    status, answer = ask(Service(bundle, WorkedSession()), body)
    assert (status, [edit["id"] for edit in answer["edits"]]) == (200, ["fc/u0.s0", "fc/u1.s0", "fc/u1.s1"])
    status, answer = ask(Service(bundle, WorkedSession(), Settings(Limits(max_edits=2))), body)
    assert (status, "more than the 2 edits" in answer["message"]) == (400, True)


def test_presets_are_named_edits(tmp_path: Path) -> None:
    service = Service(with_presets(tmp_path / "b"), WorkedSession())
    by_hand = ask(service, {"op": "steer", "image": TEXT, "edits": PRESET["less red"]})
    assert ask(service, {"op": "steer", "image": TEXT, "preset": "less red"}) == by_hand
    assert ask(service, {"op": "steer", "image": TEXT, "preset": "more"})[0] == 404
    assert ask(service, {"op": "steer", "image": TEXT, "preset": "no red", "edits": []})[0] == 400
    assert ask(service, {"op": "steer", "image": TEXT})[1]["message"] == "Field 'edits' is missing."
    assert list(ask(service, None, describe=True)[1]["presets"]) == ["less red", "no red"]


def test_steering_can_be_limited_to_presets_or_off(tmp_path: Path) -> None:
    bundle = with_presets(tmp_path / "b")
    free = {"op": "steer", "image": TEXT, "edits": PRESET["less red"]}
    named = {"op": "steer", "image": TEXT, "preset": "less red"}
    for steering, expected in (("free", (200, 200)), ("presets", (403, 200)), ("off", (403, 403))):
        service = Service(bundle, WorkedSession(), Settings(steering=steering))
        assert (ask(service, free)[0], ask(service, named)[0]) == expected


def test_a_preset_can_be_what_is_served(tmp_path: Path) -> None:
    bundle = with_presets(tmp_path / "b")
    plain = Service(bundle, WorkedSession())
    served = Service(bundle, WorkedSession(), Settings(preset="no red"))
    steered = ask(plain, {"op": "steer", "image": TEXT, "preset": "no red"})[1]
    assert ask(served, PICTURE)[1] == steered["steered"] != ask(plain, PICTURE)[1]
    assert ask(served, PICTURE, explain=True)[1]["prediction"] == steered["steered"]
    assert ask(served, {"op": "steer", "image": TEXT, "edits": []})[1]["unsteered"] == ask(plain, PICTURE)[1]
    assert served.describe()["preset"] == "no red"
    with pytest.raises(UsageError, match="no preset 'other'"):
        Service(bundle, WorkedSession(), Settings(preset="other"))


@pytest.mark.parametrize(
    "presets", [[], {"a": {}}, {"a": [{"id": "fc/u9.s0", "action": "ablate"}]}, {"a": [{"action": "x"}]}]
)
def test_wrong_presets_do_not_load(tmp_path: Path, presets: Any) -> None:
    with pytest.raises(BundleError, match=r"presets\.json"):
        Service(with_presets(tmp_path / "b", presets), WorkedSession())
