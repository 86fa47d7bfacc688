"""The verdict as a file: it survives JSON, refuses to contradict itself, and is told as JUnit and Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from _gate import HASH, TODAY, bad_accuracy, policy, run, waiver

from elude.quality.gate.judge import judge
from elude.quality.gate.verdict import Check, PresetRuling, Verdict
from elude.quality.gate.verdict_formats import junit_xml, markdown, verdict_json


def test_the_verdict_survives_json_and_refuses_a_lie():
    document = json.loads(verdict_json(run(bad_accuracy())))
    assert Verdict.from_json(document) == run(bad_accuracy())
    with pytest.raises(ValueError, match="passed"):
        Verdict.from_json(document | {"passed": True})
    with pytest.raises(ValueError, match="schema_version"):
        Verdict.from_json(document | {"schema_version": 2})
    with pytest.raises(ValueError, match="not a verdict"):
        Verdict.from_json({"schema_version": 1})
    passed = json.loads(verdict_json(run()))
    with pytest.raises(ValueError, match="passed"):
        Verdict.from_json(passed | {"checks": []})
    with pytest.raises(ValueError, match="outcome"):
        Verdict.from_json(passed | {"checks": [passed["checks"][0] | {"outcome": "fine"}]})


def test_junit_counts_failures_and_survives_odd_characters():
    verdict = run(bad_accuracy())
    odd = replace(verdict, policy_name="a<b>\x00&", state="judged")
    suite = ElementTree.fromstring(junit_xml(odd))[0]
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) == len(verdict.failures) > 0
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == len(verdict.checks)
    unjudged = ElementTree.fromstring(junit_xml(judge(None, policy(), today=TODAY)))[0]
    assert unjudged.attrib["errors"] == "1"


def test_markdown_shows_failures_first_and_escapes():
    text = markdown(replace(run(bad_accuracy()), model="a|<b>"))
    assert text.startswith("## Gate failed: a\\|&lt;b>")
    assert text.index("❌ fail") < text.index("✅ pass")
    assert "passed" in markdown(run()).splitlines()[0]
    assert "candidate missing" in markdown(judge(None, policy(), today=TODAY))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"state": "fine"}, "unknown state"),
        ({"policy": {"name": "test", "sha256": "0" * 64, "toml": "a lax one"}}, "does not match the hash"),
        ({"presets": {"a": {"passed": True, "edits_sha256": HASH, "checks": []}}}, "preset's ruling"),
        (
            {"presets": {"a": {"passed": False, "edits_sha256": HASH, "checks": [Check("x", "pass", "y").to_json()]}}},
            "preset's ruling",
        ),
    ],
)
def test_a_verdict_that_contradicts_itself_is_none(lie: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Verdict.from_json(json.loads(verdict_json(run())) | lie)


@pytest.mark.parametrize(
    "path",
    [
        ("policy", "name"),
        ("subject", "model"),
        ("subject", "artefact_sha256"),
        ("subject", "quality_sha256"),
        ("subject", "equivalence_sha256"),
        ("waivers", 0),
        ("baseline",),
        ("baseline", "artefact_sha256"),
        ("judged_on",),
        ("valid_until",),
    ],
)
def test_a_field_of_another_type_is_refused(path: tuple[Any, ...]):
    document = json.loads(verdict_json(run(bad_accuracy(), waivers=(waiver(),))))
    assert Verdict.from_json(document).waivers
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = 5
    with pytest.raises(ValueError, match=r"."):
        Verdict.from_json(document)


def test_only_a_judged_verdict_with_checks_passes():
    good = Check("x", "pass", "y")
    assert not PresetRuling(HASH, ()).passed
    assert PresetRuling(HASH, (good,)).passed
    assert not replace(run(), checks=()).passed
    for state in ("candidate_missing", "not_evaluated", "baseline_missing"):
        verdict = replace(run(), state=state, checks=(good,))
        assert (verdict.passed, verdict.exit_code) == (False, 3)
