"""A preset is served only if it was measured as it is, on this bundle, and passed; every doubt counts against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from _stores import make

from elude.handlers.admission.admission import admit, admitted_presets, check_verdict, preset_hashes
from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError
from elude.quality.gate.judge import judge, judged_again
from elude.quality.gate.verdict import Verdict
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.policies.policy import DEFAULT_POLICY, Policy, parse_policy

EDITS = [{"id": "fc2/u0.s1", "action": "scale", "value": 2.0, "patches": 0}]


def policy(more: str = "") -> Policy:
    return parse_policy(DEFAULT_POLICY.read_bytes() + more.encode())


def bundle(root: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Bundle:
    made = make(root, verdict=False).add({"presets.json": json.dumps({"bright": EDITS}).encode()})
    quality = made.json("quality.json")
    quality["subject"] = {"artefact_sha256": made.artefact_sha256, "edits_sha256": preset_hashes(made)["bright"]}
    content = {"presets": {"bright": quality}}
    change(content)
    return made.add({"presets_quality.json": json.dumps(content).encode()})


def judged(made: Bundle, rules: Policy | None = None) -> tuple[Bundle, Verdict]:
    verdict = judge(made, rules or policy())
    return made.add({"verdict.json": verdict_json(verdict)}), verdict


def test_a_measured_preset_passes_and_is_admitted(tmp_path: Path):
    made, verdict = judged(bundle(tmp_path / "b"))
    assert verdict.passed
    assert verdict.presets["bright"].passed
    assert admit(made, Requirements(verdict=True)).presets == {"bright"}
    assert Verdict.from_json(made.json("verdict.json")) == verdict
    assert judged_again(made, verdict) == verdict
    assert [c.outcome for c in verdict.checks if c.name == "preset.bright"] == ["pass"]


def at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        place = content["presets"]["bright"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def accuracy(value: float, images: int = 1000) -> dict[str, Any]:
    measured_on = {"sets": {"images": {"images": images, "sha256": "9" * 64}}}
    return {"value": value, "interval": [value, value], "higher_is_better": True, "measured_on": measured_on}


CHANGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (lambda content: content.update(presets={}), "preset.measured"),
    (lambda content: content.update(presets=[]), "preset.measured"),
    (lambda content: content["presets"].update(bright={}), "preset.measured"),
    (at("schema_version", value=1), "preset.schema"),
    (at("schema_version", value=True), "preset.schema"),
    (at("schema_version", value=2.0), "preset.schema"),
    (at("subject", value={}), "preset.artefact"),
    (at("subject", "artefact_sha256", value="0" * 64), "preset.artefact"),
    (at("subject", "edits_sha256", value="0" * 64), "preset.edits"),
    (at("suite", "sha256", value="0" * 64), "preset.suite"),
    (at("suite", value={}), "preset.suite"),
    (at("dimensions", value={}), "accuracy.measured"),
    (at("dimensions", "accuracy", "value", value=None), "accuracy.measured"),
    (at("dimensions", "accuracy", value=accuracy(0.5)), "accuracy.limit"),
    (at("dimensions", "accuracy", value=accuracy(0.86)), "accuracy.drop"),
    (at("dimensions", "accuracy", value=accuracy(0.9, images=999)), "accuracy.alike"),
    (at("dimensions", "accuracy", value=accuracy(0.9, images=499)), "accuracy.images"),
]


@pytest.mark.parametrize(("change", "name"), CHANGES)
def test_a_preset_fails_closed_and_alone(tmp_path: Path, change: Callable[[dict[str, Any]], None], name: str):
    made, verdict = judged(bundle(tmp_path / "b", change))
    ruling = verdict.presets["bright"]
    assert not ruling.passed
    assert name in [check.name for check in ruling.checks if check.outcome == "fail"]
    assert verdict.passed  # the model itself is as good as before
    assert [c.outcome for c in verdict.checks if c.name == "preset.bright"] == ["warn"]
    assert admit(made, Requirements(verdict=True)).presets == frozenset()
    strict = judge(made, policy("[presets]\nseverity = 'fail'\n"))
    assert not strict.passed


def test_junk_measurements_of_presets_admit_none(tmp_path: Path):
    _, verdict = judged(bundle(tmp_path / "b").add({"presets_quality.json": b"{"}))
    assert not verdict.presets["bright"].passed


def test_exempt_dimensions_are_not_asked_of_a_preset(tmp_path: Path):
    change = at("dimensions", "corruption_robustness", "value", value=None)
    assert not judge(bundle(tmp_path / "b", change), policy()).presets["bright"].passed
    assert (
        judge(bundle(tmp_path / "c", change), policy("[presets]\nexempt = ['corruption_robustness']\n"))
        .presets["bright"]
        .passed
    )


def test_a_preset_that_changed_after_its_ruling_is_not_admitted(tmp_path: Path):
    made, _ = judged(bundle(tmp_path / "b"))
    stronger = [EDITS[0] | {"value": 9.0}]
    changed = made.add({"presets.json": json.dumps({"bright": stronger, "other": EDITS}).encode()})
    assert admitted_presets(changed, check_verdict(changed)) == frozenset()


@pytest.mark.parametrize(
    "ruling",
    [
        None,
        {},
        {"passed": False},
        {"passed": 1},
        {"checks": []},
        {"checks": None},
        {"checks": [{"outcome": "fail"}]},
        {"checks": [{"outcome": "fine"}]},
        {"checks": ["pass"]},
        {"edits_sha256": None},
    ],
)
def test_a_ruling_that_says_otherwise_admits_nothing(tmp_path: Path, ruling: Any):
    made, _ = judged(bundle(tmp_path / "b"))
    verdict = made.json("verdict.json")
    changed = verdict["presets"]["bright"] | ruling if ruling else ruling
    assert admitted_presets(made, verdict) == {"bright"}
    assert admitted_presets(made, verdict | {"presets": {"bright": changed}}) == frozenset()
    assert admitted_presets(made, verdict | {"presets": [changed]}) == frozenset()


def test_presets_that_are_no_object_are_refused(tmp_path: Path):
    with pytest.raises(BundleError, match=r"presets\.json"):
        preset_hashes(make(tmp_path / "b").add({"presets.json": b"[]"}))


def test_a_baseline_bundle_counts_and_the_verdict_can_be_reached_again_from_what_it_holds(tmp_path: Path):
    better, worse = (
        make(tmp_path / "b", verdict=False, accuracy=0.95),
        make(tmp_path / "c", verdict=False, accuracy=0.9),
    )
    stopped = judge(worse, policy(), baseline=better)
    assert [check.name for check in stopped.failures] == ["accuracy.drop"]
    verdict = judge(better, policy(), baseline=worse)
    assert verdict.passed
    assert judged_again(better, Verdict.from_json(json.loads(verdict_json(verdict)))) == verdict
    assert judge(better, policy(), today=date(2020, 1, 2)).judged_on == "2020-01-02"
