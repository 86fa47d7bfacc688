"""What the gate compares with: a baseline of its own bytes, measured on the same images, or none where the policy
allows it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from _gate import DROP, OTHER, TODAY, D, evidence, policy, put, quality, run

from elude.quality.gate.judge import decide, judge


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


@pytest.mark.parametrize(
    "change", [put(D, "accuracy", "higher_is_better", False), put(D, "accuracy", "interval", [1.0, 0.0])]
)
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


@pytest.mark.parametrize("version", [True, 2.0])
def test_a_boolean_or_a_fraction_is_no_schema_version_of_the_baseline_either(version: Any):
    document = quality()
    put("schema_version", version)(document)
    assert "baseline.schema" in [check.name for check in run(baseline=evidence(quality=document)).failures]


def test_a_baseline_and_its_measurements_that_both_name_no_bytes_are_not_of_the_same_bytes():
    document = quality()
    put("subject", "artefact_sha256", "")(document)
    nameless = evidence(quality=document, artefact_sha256="")
    assert "baseline.artefact" in [check.name for check in run(baseline=nameless).failures]


def test_a_policy_that_compares_with_nothing_needs_no_baseline():
    alone = policy(("max_drop = 0.05\nmax_drop_relative = 0.1\n", ""), ("max = 0.1\nmax_drop = 0.05", "max = 0.1"))
    assert decide(evidence(), alone, None, (), TODAY).passed


@pytest.mark.parametrize(("now", "stopped"), [(0.0625, False), (0.078125, True)])
def test_an_error_may_rise_by_as_much_as_the_policy_says_and_no_more(now: float, stopped: bool) -> None:
    before, after = quality(), quality()
    put(D, "calibration_error", "value", 0.03125)(before)
    put(D, "calibration_error", "value", now)(after)  # the numbers are exact in binary
    rules = policy(("max = 0.1\nmax_drop = 0.05", "max = 0.1\nmax_drop = 0.03125"))
    verdict = run(evidence(quality=after), evidence(quality=before), policy=rules)
    assert [check.name for check in verdict.failures] == (["calibration_error.drop"] if stopped else [])
