"""A first policy, its numbers worked by hand from the measurements: none is laxer than it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _stores import make
from scipy.stats import binom

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.gate.policy_init import policy_init, room_of_class
from elude.quality.policies.policy import Policy, parse_policy
from elude.quality.statistics.class_drop import share_limits

STEP = 0.0011  # limits are rounded to three decimals, away from the value


def made(tmp_path: Path, dimensions: dict[str, Any], images: int = 1000, **settings: Any) -> Policy:
    """The policy of a baseline with these measurements: dimension to (value, interval) and factors."""
    bundle = make(tmp_path / "b", verdict=False)
    document = bundle.json("quality.json")
    on = {"sets": {"images": {"images": images, "sha256": "9" * 64}}}
    document["dimensions"] = {
        name: {"higher_is_better": HIGHER_IS_BETTER[name], "measured_on": on, **entry}
        for name, entry in dimensions.items()
    }
    document["settings"] |= settings
    return parse_policy(policy_init(bundle.add({"quality.json": json.dumps(document).encode()})).encode())


def rule(tmp_path: Path, dimension: str, value: float, interval: list[float] | None, **more: Any) -> Any:
    """The only rule of a policy: other factors than those of adversarial robustness have none."""
    entry = {"value": value, "interval": interval, "factors": {"ece": 0.1, "ace": 0.1}}
    (found,) = made(tmp_path, {dimension: entry}, **more).dimensions
    return found


@pytest.mark.parametrize(
    ("dimension", "value", "interval", "limit", "drop"),
    [
        ("accuracy", 0.9, [0.87, 0.92], 0.87 - 0.045, 0.045),
        ("accuracy", 0.9, [0.89, 0.93], 0.89 - 0.045, 0.045),  # the longer half counts
        ("class_balance", 0.8, [0.82, 0.85], 0.8 - 0.075, 0.075),  # an interval without its estimate
        ("ood_robustness", 0.5, [0.5, 0.5], 0.5 - 0.0015, 0.0015),  # at least one image of 1,000
        ("calibration_error", 0.05, [0.04, 0.07], 0.07 + 0.03, 0.03),
        ("calibration_error", 0.05, [0.02, 0.06], 0.06 + 0.045, 0.045),
        ("calibration_error", 0.05, [0.03, 0.04], 0.05 + 0.03, 0.03),
    ],
)
def test_a_limit_is_a_pessimistic_end_and_one_and_a_half_half_widths(
    tmp_path: Path, dimension: str, value: float, interval: list[float], limit: float, drop: float
) -> None:
    found = rule(tmp_path, dimension, value, interval)
    away = -STEP if HIGHER_IS_BETTER[dimension] else STEP
    assert min(limit, limit + away) <= found.limit <= max(limit, limit + away)
    assert drop <= found.max_drop <= drop + STEP
    assert (found.decide_on, found.min_images, found.severity, found.required) == ("bound", 1000, "fail", True)


def test_what_is_counted_may_differ_by_a_tenth(tmp_path: Path) -> None:
    found: Any
    (found,) = made(tmp_path, {"params_m": {"value": 0.6, "interval": None, "measured_on": {}}}).dimensions
    assert 0.66 <= found.limit <= 0.66 + STEP
    assert found.max_drop is None
    without = rule(tmp_path / "a", "accuracy", 0.8, None)
    assert 0.72 - STEP <= without.limit <= 0.72


def test_a_rule_that_could_not_fail_is_left_out(tmp_path: Path) -> None:
    at_the_end = rule(tmp_path / "a", "accuracy", 0.625, [0.375, 0.625])  # 0.375 below the end is 0, the measure's end
    assert (at_the_end.limit, at_the_end.max_drop) == (None, 0.375)
    never = {"accuracy": {"value": 0.375, "interval": [0.125, 0.5]}, "params_m": {"value": 0.6, "interval": None}}
    assert [found.dimension for found in made(tmp_path / "b", never).dimensions] == ["params_m"]
    lower = rule(tmp_path / "c", "calibration_error", 0.375, [0.25, 0.625])  # 0.375 above the end is 1
    assert (lower.limit, lower.max_drop) == (None, 0.375)
    worst = {"accuracy": {"value": 0.0, "interval": None}, "params_m": {"value": 0.6, "interval": None}}
    assert [found.dimension for found in made(tmp_path / "d", worst).dimensions] == ["params_m"]


def test_factors_of_adversarial_robustness_have_rules_of_their_own(tmp_path: Path) -> None:
    entry = {
        "value": 0.0,
        "interval": [0.0, 0.0],
        "factors": {"fgsm_1": 0.6, "pgd_1": 0.5, "clean_accuracy": 0.9, "pgd": "broken"},
        "factor_intervals": {"fgsm_1": [0.56, 0.62], "pgd_1": [0.5, 0.5]},
    }
    rules: dict[str, Any] = {
        found.name: found for found in made(tmp_path, {"adversarial_robustness": entry}).dimensions
    }
    assert list(rules) == ["adversarial_robustness.fgsm_1", "adversarial_robustness.pgd_1"]
    assert rules["adversarial_robustness.fgsm_1"].limit == pytest.approx(0.5, abs=STEP)
    assert rules["adversarial_robustness.pgd_1"].min_images == 1000


def test_the_release_must_have_a_baseline_the_same_images_and_a_lossless_rewrite(tmp_path: Path) -> None:
    found = made(tmp_path, {"accuracy": {"value": 0.9, "interval": [0.87, 0.92]}}, budget=70, seed=3)
    assert (found.baseline_required, found.suite_sha256, found.budget, found.seed) == (True, "c" * 64, 70, 3)
    assert dict(found.claims) == {"sums": 1e-3, "rewrite": 0.0, "runtime": 1e-3}
    assert (found.disentangled.default, found.served.default) == (1e-6, 0.01)
    assert (found.presets.severity, set(found.presets.exempt)) == ("warn", {"adversarial_robustness"})
    whole = made(tmp_path / "a", {"accuracy": {"value": 0.9, "interval": [0.87, 0.92]}}, budget=None, seed=None)
    assert (whole.budget, whole.seed) == (None, 0)


def test_measurements_without_their_images_make_no_policy(tmp_path: Path) -> None:
    broken_ones: list[dict[str, Any]] = [{"value": 0.9, "measured_on": {}}, {"value": None}, {"value": 1.5}]
    for number, broken in enumerate(broken_ones):
        with pytest.raises(EvaluationError, match="accuracy"):
            made(tmp_path / str(number), {"accuracy": {"interval": None, **broken}})


def test_measurements_of_an_earlier_version_make_no_policy(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", verdict=False)
    measured = bundle.json("quality.json")
    for version in (1, None, 3):
        bundle = bundle.add({"quality.json": json.dumps(measured | {"schema_version": version}).encode()})
        with pytest.raises(EvaluationError, match="earlier version"):
            policy_init(bundle)
    documents: list[Any] = [measured | {"dimensions": {}}, []]
    for document in documents:
        bundle = bundle.add({"quality.json": json.dumps(document).encode()})
        with pytest.raises(EvaluationError, match="not measured"):
            policy_init(bundle)


@pytest.mark.parametrize(("images", "right"), [(10, 9), (20, 15), (50, 50), (7, 0)])
def test_the_room_of_a_class_is_what_an_equal_model_seldom_exceeds(images: int, right: int) -> None:
    rate = (right + 1) / (images + 2)
    wrong = int(binom.ppf(1 - 0.05, images, rate * (1 - rate)))  # the fewest that leave a chance of 5 % at most
    assert room_of_class(images, right, 0.05) == pytest.approx(share_limits(wrong, images)[1])


@pytest.mark.parametrize(
    ("rows", "judged"),
    [
        (["1" * 20] * 10 + ["0" * 30], 20),  # a class that is always wrong cannot get worse, the others can
        (["1"] * 3 + ["1" * 40] * 5, 40),
    ],
)
def test_the_rule_on_classes_has_room_for_the_class_that_needs_most(
    tmp_path: Path, rows: list[str], judged: int
) -> None:
    images, right = sum(map(len, rows)), sum(row.count("1") for row in rows)
    answers = {f"class {i}": row for i, row in enumerate(rows)}
    entry = {"value": right / images, "interval": [right / images] * 2, "right_per_class": answers}
    classes = made(tmp_path, {"accuracy": entry}, images=images).classes
    large = [(len(row), row.count("1")) for row in rows if len(row) >= judged]
    room = max(room_of_class(*row, 0.05 / len(large)) for row in large)
    assert classes is not None
    assert (classes.min_images, classes.decide_on, classes.severity) == (judged, "bound", "fail")
    assert room <= classes.max_drop <= room + STEP


def test_classes_that_cannot_get_worse_by_more_than_the_room_have_no_rule(tmp_path: Path) -> None:
    answers = {f"class {i}": "0" * 20 for i in range(4)}
    entry = {"value": 0.0, "interval": [0.0, 0.0], "right_per_class": answers}
    assert made(tmp_path, {"accuracy": entry, "params_m": {"value": 0.6}}, images=80).classes is None
