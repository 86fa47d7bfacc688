"""Every rule can fail, every number lies in the range of its measure, and reasons print the digits that decide."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _gate import DROP, D, evidence, policy, put, quality, run
from _stores import make
from hypothesis import given
from hypothesis import strategies as st

from elude.handlers.errors import UsageError
from elude.quality.dimensions import DIMENSIONS, HIGHER_IS_BETTER, RANGES
from elude.quality.dimensions.adversarial_robustness import adversarial_robustness
from elude.quality.gate.checks import deciding_digits
from elude.quality.gate.judge import judge
from elude.quality.gate.policy_init import policy_init
from elude.quality.policies.policy import load_policy, parse_policy

HEAD = 'schema_version = 1\nname = "p"\n[lossless.claims]\nsums = 1e-4\nrewrite = 0\nruntime = 1e-4\n'


@pytest.mark.parametrize(
    "rule",
    [
        "[dimensions.accuracy]\nmin = 0",
        "[dimensions.accuracy]\nmin = -0.137",
        "[dimensions.accuracy]\nmin = 1.01",
        "[dimensions.adversarial_robustness]\nmin = 0.0",
        "[dimensions.ood_robustness]\nmin = -0.137",
        "[dimensions.object_focus]\nmin = 2.5",
        "[dimensions.calibration_error]\nmax = 1",
        "[dimensions.calibration_error]\nmax = -0.1",
        "[dimensions.accuracy]\nmax_drop = 1",
        "[dimensions.accuracy]\nmax_drop_relative = 1",
        "[dimensions.calibration_error.factors.ece]\nmax = 1",
        "[dimensions.adversarial_robustness.factors.pgd_1]\nmin = 0",
        "[dimensions.adversarial_robustness.factors.clean_accuracy]\nmin = 0.5",
        "[dimensions.adversarial_robustness.factors.pgd_1]\nseverity = 'warn'",
        "[dimensions.adversarial_robustness.factors]",
        "[dimensions.accuracy]\nmin = 0.5\n[lossless.served]\naccuracy = 1.0",
        "[dimensions.accuracy]\nmin = 0.5\n[lossless.served]\ndefault = 1.0",
    ],
)
def test_a_rule_that_cannot_fail_is_refused(rule: str) -> None:
    with pytest.raises(UsageError):
        parse_policy((HEAD + rule + "\n").encode())


def test_every_rule_of_the_default_policy_can_fail() -> None:
    for rule in load_policy().dimensions:
        low, high = RANGES[rule.dimension]
        if rule.limit is not None:
            assert rule.limit > low if HIGHER_IS_BETTER[rule.dimension] else rule.limit < high


@pytest.mark.parametrize("value", [0.04, 0.05])
def test_a_drop_that_the_baseline_leaves_no_room_for_is_refused(value: float) -> None:
    document = quality()
    put(D, "accuracy", "value", value)(document)
    put(D, "accuracy", "interval", None)(document)
    alone = policy(("min = 0.8\n", ""), ("max_drop_relative = 0.1\n", ""), ('decide_on = "bound"', ""))
    verdict = run(evidence(quality=document), evidence(quality=document), policy=alone)
    assert "accuracy.drop" in [check.name for check in verdict.failures]


@pytest.mark.parametrize("value", [0.75, 0.875])
def test_a_rise_that_ends_where_the_measure_does_is_refused_too(value: float) -> None:
    document = quality()
    put(D, "calibration_error", "value", value)(document)  # 0.75 and 0.25 are exactly 1
    rules = policy(("max = 0.1\nmax_drop = 0.05", "max_drop = 0.25"))
    verdict = run(evidence(quality=document), evidence(quality=document), policy=rules)
    assert "calibration_error.drop" in [check.name for check in verdict.failures]


@pytest.mark.parametrize(
    ("dimension", "value", "interval"),
    [
        ("accuracy", 1.2, None),
        ("accuracy", 0.9, [0.88, 1.01]),
        ("accuracy", -0.1, None),
        ("calibration_error", 0.05, [-0.01, 0.06]),
        ("params_m", -1.0, None),
    ],
)
def test_numbers_that_cannot_be_are_no_evidence(dimension: str, value: float, interval: Any) -> None:
    document = quality()
    put(D, dimension, "value", value)(document)
    put(D, dimension, "interval", interval)(document)
    assert f"{dimension}.measured" in [check.name for check in run(evidence(quality=document)).failures]


FACTOR = "[dimensions.adversarial_robustness.factors.fgsm_1]\nmin = 0.1\nmax_drop = 0.05\ndecide_on = 'bound'\n"


def attacked(fgsm: float) -> dict[str, Any]:
    """A model that keeps nothing under PGD at 8/255, as undefended ones do."""
    rng = np.random.default_rng(0)
    clean, none = np.ones(500, bool), np.zeros(500, bool)
    weaker = {"fgsm_1": rng.random(500) < fgsm, "pgd_1": none}
    result = adversarial_robustness(clean, none, none, weaker=weaker)
    assert result.value == 0
    document = quality()
    entry = result.to_json()
    entry["measured_on"] = document[D]["accuracy"]["measured_on"]
    put(D, "adversarial_robustness", entry)(document)
    for form in ("original", "disentangled", "served"):
        put("lossless", form, "adversarial_robustness", 0.0)(document)
    return document


@pytest.mark.parametrize(("fgsm", "stopped"), [(0.216, False), (0.032, True)])
def test_a_factor_tells_good_from_bad_where_the_value_is_zero_for_both(fgsm: float, stopped: bool) -> None:
    rules = policy(("[dimensions.shape_bias]", FACTOR + "[dimensions.shape_bias]"))
    verdict = run(evidence(quality=attacked(fgsm)), evidence(quality=attacked(0.216)), policy=rules)
    failures = [check.name for check in verdict.failures]
    name = "adversarial_robustness.fgsm_1"
    assert (f"{name}.limit" in failures, f"{name}.drop" in failures) == (stopped, stopped or verdict.passed is False)
    assert f"{name}.limit" in [check.name for check in verdict.checks]


def test_a_factor_that_a_measured_dimension_lacks_fails() -> None:
    rules = policy(("[dimensions.shape_bias]", FACTOR + "[dimensions.shape_bias]"))
    document = attacked(0.216)
    put(D, "adversarial_robustness", "factors", "fgsm_1", DROP)(document)
    names = [check.name for check in run(evidence(quality=document), evidence(quality=document), policy=rules).failures]
    assert names == ["adversarial_robustness.fgsm_1.measured"]


def test_a_factor_that_was_not_measured_fails() -> None:
    rules = policy(("[dimensions.shape_bias]", FACTOR + "[dimensions.shape_bias]"))
    assert "adversarial_robustness.fgsm_1.measured" in [check.name for check in run(policy=rules).failures]


def test_a_policy_made_from_few_images_has_no_rule_that_cannot_fail(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", verdict=False)
    document = bundle.json("quality.json")
    wide = {"value": 0.2, "interval": [0.0, 0.41], "higher_is_better": True}
    wide["measured_on"] = document[D]["accuracy"]["measured_on"]
    for dimension in ("ood_robustness", "shape_bias"):
        put(D, dimension, dict(wide))(document)
    put(D, "class_balance", "interval", [0.8, 1.0])(document)  # all of its room is on the other side
    for form in ("original", "disentangled", "served"):
        document["lossless"][form] |= {"ood_robustness": 0.2, "shape_bias": 0.2}
    bundle = bundle.add({"quality.json": json.dumps(document).encode()})
    made = parse_policy(policy_init(bundle).encode())
    rules = {rule.dimension: rule for rule in made.dimensions}
    assert not {"ood_robustness", "shape_bias"} & rules.keys()
    assert rules["class_balance"].max_drop is not None
    assert rules["class_balance"].max_drop >= 0.2
    assert judge(bundle, made, baseline=bundle).passed


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_two_numbers_that_differ_are_printed_differently(first: float, second: float) -> None:
    shown = deciding_digits(first, second)
    assert (shown[0] == shown[1]) == (first == second)
    for text, number in zip(shown, (first, second), strict=True):
        assert math.isclose(float(text), number, rel_tol=1e-3, abs_tol=1e-300)


def test_a_difference_of_the_last_digit_is_told() -> None:
    document = quality()
    put("lossless", "disentangled", "calibration_error", 0.05 + 1e-12)(document)
    (check,) = [
        c for c in run(evidence(quality=document)).checks if c.name == "lossless.disentangled.calibration_error"
    ]
    assert check.outcome == "fail"
    assert "0.050000000001" in check.reason


def test_ranges_hold_for_all_dimensions() -> None:
    assert set(RANGES) == set(DIMENSIONS)
