"""Concepts in requests and answers, against a model that is worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from _worked import COLOUR, COLOUR_PORTRAIT, GREEN, TEXT, WorkedSession, ask, make_bundle

from elude.handlers.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(make_bundle(tmp_path / "b", concepts=(COLOUR, GREEN)), WorkedSession())


def steer(service: Service, *edits: dict[str, object]) -> tuple[int, dict[str, object]]:
    return ask(service, {"op": "steer", "image": TEXT, "edits": list(edits)})


def test_one_edit_of_a_concept_is_the_same_edit_of_each_member(service: Service) -> None:
    members = [{"id": f"fc/{name}", "action": "scale", "value": 3.0} for name in ("u1.s1", "u0.s0")]
    expected = steer(service, *members)
    assert expected[0] == 200
    assert steer(service, {"concept": "Colour", "action": "scale", "value": 3.0}) == expected
    assert steer(service, {"concept": "c0", "action": "scale", "value": 3.0}) == expected


def test_top_takes_the_most_typical_members(service: Service) -> None:
    edit = {"concept": "colour", "action": "ablate", "top": 1}
    assert steer(service, edit) == steer(service, {"id": "fc/u1.s1", "action": "ablate"})


def test_a_sub_units_name_still_works_where_no_concept_has_it(service: Service) -> None:
    by_name = steer(service, {"concept": "red thing", "action": "ablate"})
    assert by_name == steer(service, {"id": "fc/u0.s0", "action": "ablate"})


def test_an_unknown_concept_is_refused(service: Service) -> None:
    assert steer(service, {"concept": "c7", "action": "ablate"})[0] == 404


def test_search_feature_and_inspect_say_the_concept(service: Service) -> None:
    facts = {"id": "c0", "name": "colour", "members": 2, "agreement": 0.9, "purity": None, "typical": "fc/u1.s1"}
    assert ask(service, {"op": "search", "query": "colo"})[1]["concepts"] == [facts]
    assert ask(service, {"op": "search", "query": "c0"})[1]["concepts"] == [facts]
    assert ask(service, {"op": "feature", "id": "fc/u0.s0"})[1]["concept"] == facts
    status, answer = ask(service, {"op": "inspect", "image": TEXT})
    assert status == 200
    assert {row["id"]: row["concept"]["id"] for row in answer["sub_units"]} == {
        "fc/u0.s0": "c0",
        "fc/u1.s0": "c1",
        "fc/u1.s1": "c0",
    }


def test_an_image_s_concepts_are_ordered_by_their_members_mean_relative_activation(service: Service) -> None:
    """Peaks are red 1, green 0.2, blue - green 0.8; the largest known of each is 1, so colour has the mean 0.9."""
    concepts = ask(service, {"op": "inspect", "image": TEXT})[1]["concepts"]
    assert [(row["id"], pytest.approx(row["relative"], abs=1e-6)) for row in concepts] == [("c0", 0.9), ("c1", 0.2)]
    assert len(ask(service, {"op": "inspect", "image": TEXT, "top_k": 1})[1]["concepts"]) == 1


def test_a_concept_is_looked_up_by_identifier_or_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "portrayed", concepts=(COLOUR, GREEN), portraits=(COLOUR_PORTRAIT,))
    portrayed = Service(bundle, WorkedSession())
    status, answer = ask(portrayed, {"op": "concept", "id": "c0"})
    assert status == 200
    assert ask(portrayed, {"op": "concept", "id": "Colour"}) == (status, answer)
    assert [row["id"] for row in answer["sub_units"]] == ["fc/u1.s1", "fc/u0.s0"]
    assert answer["histogram"] == [1, 0, 3]
    assert answer["similar"] == []
    assert answer["opposite"] == [{"id": "c1", "name": None, "members": 1, "correlation": -0.25}]
    assert [(row["image"], row["activation"]) for row in answer["examples"]] == [("a.png", 0.75)]
    assert ask(portrayed, {"op": "concept", "id": "c9"})[0] == 404


def test_a_catalogue_without_portraits_gives_the_images_of_the_most_typical_sub_unit(service: Service) -> None:
    _, answer = ask(service, {"op": "concept", "id": "c0"})
    assert answer["histogram"] is None
    assert (answer["similar"], answer["opposite"]) == ([], [])
    typical = ask(service, {"op": "feature", "id": "fc/u1.s1"})[1]
    assert answer["examples"] == typical["examples"]


def test_inspect_of_a_concept_gives_its_sub_units_and_its_strength_however_weak(service: Service) -> None:
    whole = ask(service, {"op": "inspect", "image": TEXT})[1]
    status, answer = ask(service, {"op": "inspect", "image": TEXT, "concept": "colour"})
    assert status == 200
    assert answer["sub_units"] == [row for row in whole["sub_units"] if row["concept"]["id"] == "c0"]
    assert answer["concepts"] == [row for row in whole["concepts"] if row["id"] == "c0"]
    assert [row["id"] for row in ask(service, {"op": "inspect", "image": TEXT, "concept": "c1"})[1]["concepts"]] == [
        "c1"
    ]
    both = {"op": "inspect", "image": TEXT, "concept": "c0", "unit": "fc/u0"}
    assert ask(service, both)[0] == 400
    assert ask(service, {"op": "inspect", "image": TEXT, "concept": "c9"})[0] == 404


def test_a_concept_of_one_sub_unit_does_not_lead(service: Service) -> None:
    assert [row["id"] for row in ask(service, {"op": "inspect", "image": TEXT})[1]["concepts"]] == ["c0", "c1"]
