"""Every way in which the gate has to fail closed, and that no worse value ever turns a fail into a pass."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality.gate.evidence import Evidence
from quality.gate.judge import decide, judge
from quality.gate.verdict import Verdict
from quality.gate.verdict_formats import junit_xml, markdown, verdict_json
from quality.gate.waivers import Waiver
from quality.policies.policy import Policy, parse_policy

TODAY = date(2026, 1, 15)
HASH, OTHER = "a" * 64, "b" * 64
POLICY = b"""
schema_version = 1
name = "test"
[suite]
min_images = 100
[dimensions.accuracy]
min = 0.8
max_drop = 0.05
max_drop_relative = 0.1
decide_on = "bound"
[dimensions.calibration_error]
max = 0.1
max_drop = 0.05
[dimensions.params_m]
max = 5
severity = "warn"
[dimensions.shape_bias]
min = 0.2
required = false
[score]
min = 0.0
allow_partial = true
[lossless.claims]
sums = 1e-4
rewrite = 0
runtime = 1e-4
[lossless.served]
accuracy = 0.01
default = 0.02
"""


def entry(value: float, interval: list[float] | None = None, higher: bool = True) -> dict[str, Any]:
    return {"value": value, "interval": interval, "higher_is_better": higher, "factors": {}, "tables": {}, "images": 500}


def quality() -> dict[str, Any]:
    values = {"accuracy": 0.9, "calibration_error": 0.05}
    return {
        "schema_version": 1,
        "subject": {"kind": "served", "model": "m", "artefact_sha256": HASH},
        "suite": {"name": "s", "sha256": "c" * 64, "images": 500},
        "dimensions": {
            "accuracy": entry(0.9, [0.88, 0.92]),
            "calibration_error": entry(0.05, None, False),
            "params_m": entry(0.6, None, False),
        },
        "lossless": {"original": dict(values), "disentangled": dict(values), "served": dict(values)},
        "score": {
            "total": 0.5,
            "partial": True,
            "reference": "r",
            "per_dimension": {
                "accuracy": {"z": 1.0, "weight": 1.0, "contribution": 0.5},
                "calibration_error": {"z": 0.0, "weight": 1.0, "contribution": 0.0},
            },
        },
    }


def equivalence() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "passed": True,
        "summary": {"sums": 1.5e-6, "rewrite": 0.0, "runtime": 2e-6, "top1": 1.0},
        "claims": {
            "sums": {"layers": [{"passed": True}]},
            "rewrite": {"outputs": [{"passed": True}]},
            "runtime": {"outputs": [{"passed": True}]},
        },
    }


def evidence(**changes: Any) -> Evidence:
    return replace(Evidence("m", HASH, quality(), equivalence(), "d" * 64, "e" * 64), **changes)


def policy(*changes: tuple[str, str]) -> Policy:
    text = POLICY.decode()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_policy(text.encode())


def run(candidate: Evidence | None = None, baseline: Evidence | None = None, waivers: tuple[Waiver, ...] = (), **kw: Any) -> Verdict:
    return decide(candidate or evidence(), kw.get("policy") or policy(), baseline or evidence(), waivers, TODAY)


def put(*path_and_value: Any) -> Callable[[dict[str, Any]], None]:
    *path, last, value = path_and_value

    def change(document: dict[str, Any]) -> None:
        for key in path:
            document = document[key]
        if value is DROP:
            del document[last]
        else:
            document[last] = value

    return change


DROP = object()
D = "dimensions"
FAIL_CLOSED: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("accuracy below min on the bound", put(D, "accuracy", "interval", [0.79, 0.95]), "accuracy.limit"),
    ("missing dimension", put(D, "accuracy", DROP), "accuracy.measured"),
    ("no dimensions", put(D, {}), "accuracy.measured"),
    ("dimensions of another type", put(D, []), "accuracy.measured"),
    ("NaN", put(D, "accuracy", "value", math.nan), "accuracy.measured"),
    ("infinite", put(D, "accuracy", "value", math.inf), "accuracy.measured"),
    ("null", put(D, "accuracy", "value", None), "accuracy.measured"),
    ("text", put(D, "accuracy", "value", "0.9"), "accuracy.measured"),
    ("boolean", put(D, "accuracy", "value", True), "accuracy.measured"),
    ("not an object", put(D, "accuracy", 0.9), "accuracy.measured"),
    ("NaN in a dimension that only warns", put(D, "params_m", "value", math.nan), "params_m.measured"),
    ("NaN in a dimension that is not required", put(D, "shape_bias", entry(math.nan)), "shape_bias.measured"),
    ("no interval where the bound decides", put(D, "accuracy", "interval", None), "accuracy.limit"),
    ("NaN in the interval", put(D, "accuracy", "interval", [math.nan, 0.95]), "accuracy.measured"),
    ("interval of one end", put(D, "accuracy", "interval", [0.9]), "accuracy.measured"),
    ("interval upside down", put(D, "accuracy", "interval", [0.95, 0.85]), "accuracy.measured"),
    ("interval as text", put(D, "accuracy", "interval", "ab"), "accuracy.measured"),
    ("direction turned round", put(D, "calibration_error", "higher_is_better", True), "calibration_error.measured"),
    ("calibration above max", put(D, "calibration_error", "value", 0.11), "calibration_error.limit"),
    ("artefact of other bytes", put("subject", "artefact_sha256", OTHER), "quality.artefact"),
    ("artefact not named", put("subject", "artefact_sha256", DROP), "quality.artefact"),
    ("artefact empty", put("subject", "artefact_sha256", ""), "quality.artefact"),
    ("unknown schema", put("schema_version", 2), "quality.schema"),
    ("boolean schema", put("schema_version", True), "quality.schema"),
    ("too few images", put("suite", "images", 99), "suite.images"),
    ("images not a number", put("suite", "images", "500"), "suite.images"),
    ("no suite hash", put("suite", "sha256", DROP), "baseline.suite"),
    ("another suite than the baseline", put("suite", "sha256", "x"), "baseline.suite"),
    ("score missing", put("score", None), "score.limit"),
    (
        "score below min",
        put("score", {"total": -0.1, "partial": True, "per_dimension": {"accuracy": {"z": -0.1, "weight": 1}}}),
        "score.limit",
    ),
    ("score that does not follow from its parts", put("score", "total", 0.9), "score.limit"),
    ("score NaN", put("score", "total", math.nan), "score.limit"),
    ("score without parts", put("score", "per_dimension", {}), "score.limit"),
    ("lossless missing", put("lossless", DROP), "lossless.disentangled"),
    ("lossless without served", put("lossless", "served", {}), "lossless.served.accuracy"),
    ("twin's accuracy differs", put("lossless", "disentangled", "accuracy", 0.9 + 1e-9), "lossless.disentangled.accuracy"),
    ("better is not equal either", put("lossless", "served", "accuracy", 0.95), "lossless.served.accuracy"),
    ("served calibration differs", put("lossless", "served", "calibration_error", 0.08), "lossless.served.calibration_error"),
    ("served calibration missing", put("lossless", "served", "calibration_error", DROP), "lossless.served.calibration_error"),
    ("original NaN", put("lossless", "original", "accuracy", math.nan), "lossless.disentangled.accuracy"),
]


def test_a_good_candidate_passes():
    verdict = run()
    assert verdict.failures == ()
    assert (verdict.passed, verdict.exit_code, verdict.state) == (True, 0, "judged")
    assert verdict.artefact_sha256 == HASH
    assert any(check.name == "shape_bias.measured" and check.outcome == "warn" for check in verdict.checks)


@pytest.mark.parametrize(("change", "name"), [pytest.param(c, n, id=i) for i, c, n in FAIL_CLOSED])
def test_fails_closed(change: Callable[[dict[str, Any]], None], name: str):
    document = quality()
    change(document)
    verdict = run(evidence(quality=document))
    assert (verdict.passed, verdict.exit_code) == (False, 1)
    assert name in [check.name for check in verdict.failures]
    assert all(check.reason for check in verdict.checks)
    json.loads(verdict_json(verdict))


@pytest.mark.parametrize("claim", ["sums", "rewrite", "runtime"])
@pytest.mark.parametrize("value", [0.01, -0.01, math.nan, math.inf, "inf", None, "0", True, DROP])
def test_each_claim_of_the_rewrite_is_gated(claim: str, value: Any):
    document = equivalence()
    put("summary", claim, value)(document)
    assert f"lossless.{claim}" in [check.name for check in run(evidence(equivalence=document)).failures]


def test_no_claims_fail_each():
    names = {check.name for check in run(evidence(equivalence=None)).failures}
    assert names >= {"lossless.sums", "lossless.rewrite", "lossless.runtime", "lossless.verified"}
    for change in ({"passed": False}, {"passed": 1}, {"schema_version": 2}, {"schema_version": True}):
        assert "lossless.verified" in [c.name for c in run(evidence(equivalence=equivalence() | change)).failures]


@pytest.mark.parametrize("value", [{}, [], {"layers": [], "outputs": []}, {"layers": [{"passed": False}], "outputs": [{}]}, DROP])
@pytest.mark.parametrize("claim", ["sums", "rewrite", "runtime"])
def test_every_comparison_of_a_claim_must_have_passed(claim: str, value: Any):
    document = equivalence()
    put("claims", claim, value)(document)
    assert [check.name for check in run(evidence(equivalence=document)).failures] == [f"lossless.{claim}"]


@pytest.mark.parametrize("problem", ["quality.json cannot be parsed: x", "equivalence.json is missing"])
def test_problems_of_files_fail(problem: str):
    assert not run(evidence(problems=(problem,))).passed


def test_missing_candidate_quality_and_baseline_are_states_of_their_own():
    missing = judge(None, policy(), today=TODAY)
    assert (missing.state, missing.exit_code, missing.passed) == ("candidate_missing", 3, False)
    unmeasured = run(evidence(quality=None))
    assert (unmeasured.state, unmeasured.exit_code, unmeasured.passed) == ("not_evaluated", 3, False)
    alone = decide(evidence(), policy(), None, (), TODAY)
    assert (alone.state, alone.exit_code, alone.passed) == ("baseline_missing", 3, False)


def test_a_policy_may_let_the_first_release_go_without_baseline_and_says_so():
    first = decide(evidence(), policy(("[suite]", "[baseline]\nrequired = false\n[suite]")), None, (), TODAY)
    assert first.passed
    assert [check.outcome for check in first.checks if check.name == "baseline.present"] == ["warn"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (put(D, "accuracy", DROP), "accuracy.drop"),
        (put(D, "accuracy", "value", math.nan), "accuracy.drop"),
        (put(D, "accuracy", "value", 0.95), "accuracy.drop"),  # 0.88 < 0.95 - 0.05
        (put(D, "accuracy", "value", 0.99), "accuracy.drop_relative"),  # 0.88 < 0.99 * 0.9
        (put(D, "calibration_error", "value", -0.01), "calibration_error.drop"),
        (put("subject", "artefact_sha256", OTHER), "baseline.artefact"),
        (put("schema_version", 0), "baseline.schema"),
    ],
)
def test_the_baseline_fails_closed(change: Callable[[dict[str, Any]], None], name: str):
    document = quality()
    change(document)
    assert name in [check.name for check in run(baseline=evidence(quality=document)).failures]
    assert "baseline.present" in [check.name for check in run(baseline=evidence(quality=None)).failures]


def test_a_suite_of_its_own_may_be_demanded():
    named = policy(("min_images = 100", f"min_images = 100\nsha256 = '{OTHER}'"))
    assert [check.name for check in run(policy=named).failures] == ["suite.identity"]


def test_a_partial_score_needs_the_policys_word():
    assert "score.limit" in [c.name for c in run(policy=policy(("allow_partial = true", "allow_partial = false"))).failures]


def test_the_policys_own_weights_recompute_the_score():
    weighted = policy(("[score]\n", "[score]\nweights = {accuracy = 1, calibration_error = 3}\n"))
    (check,) = [check for check in run(policy=weighted).checks if check.name == "score.limit"]
    assert check.observed == pytest.approx(0.25)
    missing = policy(("[score]\n", "[score]\nweights = {accuracy = 1, shape_bias = 1}\n"))
    assert "score.limit" in [check.name for check in run(policy=missing).failures]


def test_severity_warn_does_not_stop_but_is_seen():
    document = quality()
    document[D]["params_m"]["value"] = 7.0
    verdict = run(evidence(quality=document))
    assert verdict.passed
    assert [check.outcome for check in verdict.checks if check.name == "params_m.limit"] == ["warn"]


def waiver(**changes: Any) -> Waiver:
    return replace(Waiver("accuracy", "known", "Ada", date(2026, 2, 1), HASH), **changes)


def bad_accuracy() -> Evidence:
    document = quality()
    document[D]["accuracy"] = entry(0.78, [0.76, 0.80])
    return evidence(quality=document)


def test_a_waiver_lets_one_dimension_through_and_is_shown():
    verdict = run(bad_accuracy(), waivers=(waiver(),))
    assert verdict.passed
    assert verdict.valid_until == "2026-02-01"
    assert verdict.waivers[0]["owner"] == "Ada"
    assert {check.outcome for check in verdict.checks if check.name == "accuracy.limit"} == {"waived"}
    assert run(bad_accuracy(), waivers=(waiver(expires=TODAY),)).passed


@pytest.mark.parametrize(
    "changes",
    [{"expires": date(2026, 1, 14)}, {"artefact_sha256": OTHER}, {"dimension": "calibration_error"}, {"dimension": "lossless"}],
)
def test_waivers_that_do_not_count(changes: dict[str, Any]):
    assert not run(bad_accuracy(), waivers=(waiver(**changes),)).passed


def test_an_expired_waiver_fails_even_where_it_is_not_needed():
    assert [c.name for c in run(waivers=(waiver(expires=date(2026, 1, 14)),)).failures] == ["waiver.accuracy"]


@pytest.mark.parametrize("value", [DROP, math.nan, None])
def test_a_missing_or_broken_number_cannot_be_waived(value: Any):
    document = quality()
    put(D, "accuracy", "value", value)(document)
    assert not run(evidence(quality=document), waivers=(waiver(),)).passed
    document = quality()
    put(D, "accuracy", "interval", None)(document)
    assert not run(evidence(quality=document), waivers=(waiver(),)).passed


finite = st.floats(-2, 2, allow_nan=False)


@given(value=finite, worse_by=st.floats(0, 2), half=st.floats(0, 0.5), wider=st.floats(0, 0.5))
def test_a_worse_accuracy_never_turns_fail_into_pass(value: float, worse_by: float, half: float, wider: float):
    better, worse = quality(), quality()
    better[D]["accuracy"] = entry(value, [value - half, value + half])
    low = value - worse_by
    worse[D]["accuracy"] = entry(low, [low - half - wider, low + half + wider])
    assert run(evidence(quality=better)).passed or not run(evidence(quality=worse)).passed


@given(value=finite, worse_by=st.floats(0, 2))
def test_a_worse_calibration_never_turns_fail_into_pass(value: float, worse_by: float):
    better, worse = quality(), quality()
    better[D]["calibration_error"]["value"] = value
    worse[D]["calibration_error"]["value"] = value + worse_by
    assert run(evidence(quality=better)).passed or not run(evidence(quality=worse)).passed


junk = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3), lambda x: st.lists(x, max_size=2))


@given(section=st.sampled_from(sorted(quality())), value=junk)
def test_junk_in_a_section_never_passes_and_never_raises(section: str, value: Any):
    document = copy.deepcopy(quality())
    document[section] = value
    assert not run(evidence(quality=document)).passed or value == document[section] == quality()[section]


@given(dimension=st.sampled_from(["accuracy", "calibration_error", "params_m"]), value=junk)
def test_junk_as_a_dimension_never_passes(dimension: str, value: Any):
    document = quality()
    document[D][dimension] = value
    assert not run(evidence(quality=document)).passed


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


# What follows was found by mutation testing: each line is a fault that no other test noticed.


@pytest.mark.parametrize("change", [put(D, "accuracy", "higher_is_better", False), put(D, "accuracy", "interval", [1.0, 0.0])])
def test_a_baseline_with_a_broken_measurement_is_no_baseline(change: Callable[[dict[str, Any]], None]):
    document = quality()
    change(document)
    assert "accuracy.drop" in [check.name for check in run(baseline=evidence(quality=document)).failures]


@pytest.mark.parametrize("sha256", ["", 5, True, ["c"]])
def test_two_suites_without_a_proper_hash_are_not_the_same(sha256: Any):
    document = quality()
    put("suite", "sha256", sha256)(document)
    verdict = run(evidence(quality=document), evidence(quality=copy.deepcopy(document)))
    assert "baseline.suite" in [check.name for check in verdict.failures]


def test_a_boolean_is_no_schema_version_of_the_baseline_either():
    document = quality()
    put("schema_version", True)(document)
    assert "baseline.schema" in [check.name for check in run(baseline=evidence(quality=document)).failures]


def test_what_cannot_be_waived_fails_even_where_nothing_else_does():
    assert [check.name for check in run(waivers=(waiver(dimension="lossless"),)).failures] == ["waiver.lossless"]


def test_a_waiver_of_what_passes_changes_nothing():
    verdict = run(waivers=(waiver(),))
    assert verdict.waivers == ()
    assert not any(check.outcome == "waived" for check in verdict.checks)


def test_limits_are_met_at_the_limit():
    document = quality()
    put("suite", "images", 100)(document)
    put("score", {"total": 0.0, "partial": False, "per_dimension": {"accuracy": {"z": 0.0, "weight": 1.0}}})(document)
    put(D, "calibration_error", "value", 0.1)(document)
    assert run(evidence(quality=document), policy=policy(("allow_partial = true", "allow_partial = false"))).passed


def test_a_policy_that_compares_with_nothing_needs_no_baseline():
    alone = policy(("max_drop = 0.05\nmax_drop_relative = 0.1\n", ""), ("max = 0.1\nmax_drop = 0.05", "max = 0.1"))
    assert decide(evidence(), alone, None, (), TODAY).passed


def test_the_pessimistic_end_is_the_upper_one_where_lower_is_better():
    on_bound = policy(("max = 0.1\nmax_drop = 0.05", "max = 0.1\nmax_drop = 0.05\ndecide_on = 'bound'"))
    for interval, stopped in (([0.01, 0.2], ["calibration_error.limit", "calibration_error.drop"]), ([0.01, 0.09], [])):
        document = quality()
        put(D, "calibration_error", entry(0.05, interval, False))(document)
        assert [check.name for check in run(evidence(quality=document), policy=on_bound).failures] == stopped


def test_of_several_waivers_the_one_that_ends_first_decides():
    document = quality()
    document[D]["accuracy"] = entry(0.78, [0.76, 0.80])
    put(D, "calibration_error", "value", 0.2)(document)
    later = waiver(dimension="calibration_error", expires=date(2026, 3, 1))
    for order in ((waiver(), later), (later, waiver())):
        verdict = run(evidence(quality=document), waivers=order)
        assert verdict.passed
        assert verdict.valid_until == "2026-02-01"


@pytest.mark.parametrize("claim", ["sums", "rewrite", "runtime"])
def test_one_failed_comparison_among_passed_ones_fails_its_claim(claim: str):
    document = equivalence()
    items = [{"passed": True}, {"passed": False}, {"passed": True}]
    put("claims", claim, {"layers": items, "outputs": items})(document)
    assert [check.name for check in run(evidence(equivalence=document)).failures] == [f"lossless.{claim}"]


@pytest.mark.parametrize("form", ["original", "disentangled", "served"])
def test_a_dimension_of_one_form_only_cannot_be_compared(form: str):
    document = quality()
    put("lossless", form, "class_balance", 0.9)(document)
    assert any(check.name.endswith(".class_balance") for check in run(evidence(quality=document)).failures)


def test_what_is_missing_is_a_failed_check_too():
    assert [check.name for check in judge(None, policy(), today=TODAY).failures] == ["candidate"]
    assert "quality.present" in [check.name for check in run(evidence(quality=None)).failures]
    assert "baseline.present" in [check.name for check in decide(evidence(), policy(), None, (), TODAY).failures]
    assert [check.name for check in run(waivers=(waiver(dimension="params"),)).failures] == ["waiver.params"]
    other = [check.outcome for check in run(waivers=(waiver(artefact_sha256=OTHER),)).checks if check.name == "waiver.accuracy"]
    assert other == ["warn"]
