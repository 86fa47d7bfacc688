"""Every way in which the gate has to fail closed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _gate import DROP, HASH, OTHER, TODAY, D, entry, equivalence, evidence, policy, put, quality, run, waiver
from _stores import make

from elude.quality.gate.judge import decide, judge
from elude.quality.gate.verdict_formats import verdict_json

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
    ("unknown schema", put("schema_version", 3), "quality.schema"),
    ("schema of an earlier version", put("schema_version", 1), "quality.schema"),
    ("boolean schema", put("schema_version", True), "quality.schema"),
    ("schema version that is not whole", put("schema_version", 2.0), "quality.schema"),
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
    (
        "score and its only part infinite",
        put(
            "score", {"total": math.inf, "partial": False, "per_dimension": {"accuracy": {"z": math.inf, "weight": 1}}}
        ),
        "score.limit",
    ),
    ("score without parts", put("score", "per_dimension", {}), "score.limit"),
    ("lossless missing", put("lossless", DROP), "lossless.disentangled"),
    ("lossless without served", put("lossless", "served", {}), "lossless.served.accuracy"),
    (
        "twin's accuracy differs",
        put("lossless", "disentangled", "accuracy", 0.9 + 1e-9),
        "lossless.disentangled.accuracy",
    ),
    ("better is not equal either", put("lossless", "served", "accuracy", 0.95), "lossless.served.accuracy"),
    (
        "served calibration differs",
        put("lossless", "served", "calibration_error", 0.08),
        "lossless.served.calibration_error",
    ),
    (
        "served calibration missing",
        put("lossless", "served", "calibration_error", DROP),
        "lossless.served.calibration_error",
    ),
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


@pytest.mark.parametrize(
    "value", [{}, [], {"layers": [], "outputs": []}, {"layers": [{"passed": False}], "outputs": [{}]}, DROP]
)
@pytest.mark.parametrize("claim", ["sums", "rewrite", "runtime"])
def test_every_comparison_of_a_claim_must_have_passed(claim: str, value: Any):
    document = equivalence()
    put("claims", claim, value)(document)
    assert [check.name for check in run(evidence(equivalence=document)).failures] == [f"lossless.{claim}"]


@pytest.mark.parametrize("problem", ["quality.json cannot be parsed: x", "equivalence.json is missing"])
def test_problems_of_files_fail(problem: str):
    assert not run(evidence(problems=(problem,))).passed


def test_a_partial_score_needs_the_policys_word():
    assert "score.limit" in [
        c.name for c in run(policy=policy(("allow_partial = true", "allow_partial = false"))).failures
    ]


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


def test_limits_are_met_at_the_limit():
    document = quality()
    put("suite", "images", 100)(document)
    put("score", {"total": 0.0, "partial": False, "per_dimension": {"accuracy": {"z": 0.0, "weight": 1.0}}})(document)
    put(D, "calibration_error", "value", 0.1)(document)
    assert run(evidence(quality=document), policy=policy(("allow_partial = true", "allow_partial = false"))).passed


def test_the_pessimistic_end_is_the_upper_one_where_lower_is_better():
    on_bound = policy(("max = 0.1\nmax_drop = 0.05", "max = 0.1\nmax_drop = 0.05\ndecide_on = 'bound'"))
    for interval, stopped in (([0.01, 0.2], ["calibration_error.limit", "calibration_error.drop"]), ([0.01, 0.09], [])):
        document = quality()
        put(D, "calibration_error", entry(0.05, interval, False))(document)
        assert [check.name for check in run(evidence(quality=document), policy=on_bound).failures] == stopped


@pytest.mark.parametrize("claim", ["sums", "rewrite", "runtime"])
def test_one_failed_comparison_among_passed_ones_fails_its_claim(claim: str):
    document = equivalence()
    items = [{"passed": True}, {"passed": False}, {"passed": True}]
    put("claims", claim, {"layers": items, "outputs": items})(document)
    assert [check.name for check in run(evidence(equivalence=document)).failures] == [f"lossless.{claim}"]


def test_an_exempt_dimension_of_the_rewrite_is_not_compared():
    document = quality()
    put("lossless", "served", "calibration_error", 0.5)(document)
    exempt = policy(("[lossless.served]\n", "[lossless.served]\nexempt = ['calibration_error']\n"))
    assert run(evidence(quality=document), policy=exempt).passed


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
    other = [
        check.outcome
        for check in run(waivers=(waiver(artefact_sha256=OTHER),)).checks
        if check.name == "waiver.accuracy"
    ]
    assert other == ["warn"]


# What follows was found by mutation testing: each line is a fault that no other test noticed.


def test_a_dimension_that_the_policy_names_must_be_compared_even_if_no_form_has_it():
    document = quality()
    for form in ("original", "disentangled", "served"):
        put("lossless", form, "accuracy", DROP)(document)
    assert "lossless.served.accuracy" in [check.name for check in run(evidence(quality=document)).failures]


def test_a_bound_at_the_limit_meets_it():
    document = quality()
    put(D, "accuracy", "interval", [0.8, 0.92])(document)
    assert "accuracy.limit" not in [check.name for check in run(evidence(quality=document)).failures]


def test_a_file_that_holds_no_object_is_a_problem(tmp_path: Path):
    bundle = make(tmp_path / "b").add({"quality.json": b"[]"})
    assert "files.quality.json" in [check.name for check in judge(bundle, policy(), today=TODAY).failures]


@pytest.mark.parametrize("name", ["quality.json", "equivalence.json"])
def test_a_file_that_was_changed_behind_the_manifest_is_a_problem(tmp_path: Path, name: str):
    bundle = make(tmp_path / "b")
    (bundle.root / name).write_bytes(b"[]")
    assert f"files.{name}" in [check.name for check in judge(bundle, policy(), today=TODAY).failures]


def test_a_dimension_that_only_the_served_model_has_stops_it():
    document = quality()
    put("lossless", "served", "class_balance", 0.9)(document)
    assert "lossless.served.class_balance" in [check.name for check in run(evidence(quality=document)).failures]
