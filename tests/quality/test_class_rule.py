"""The rule on single classes: two classes that changed places are stopped, where the accuracy of all stays the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from _gate import DROP, TODAY, D, entry, evidence, policy, put, quality, run, shuffled, waiver
from _stores import make
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.quality.dimensions.accuracy import accuracy
from elude.quality.dimensions.result import DimensionResult
from elude.quality.gate.evidence import Evidence
from elude.quality.gate.judge import decide, judge, judged_again
from elude.quality.gate.policy_init import policy_init
from elude.quality.gate.verdict import Check, Verdict
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.policies.explain import explain
from elude.quality.policies.policy import ClassRule, Policy, parse_policy
from elude.quality.statistics.class_drop import ClassDrop, class_drops, images_needed, share_limits
from elude.quality.statistics.intervals import paired_difference_interval

Answers = Mapping[str, str]
WIDE = ("max_drop = 0.05\nmax_drop_relative = 0.1\n", "max_drop = 0.2\n")


def measured(answers: Answers, **changes: Any) -> Evidence:
    """Evidence of a model with these answers."""
    images = sum(map(len, answers.values()))
    value = sum(row.count("1") for row in answers.values()) / images
    document = quality()
    on = {"sets": {"images": {"images": images, "sha256": "9" * 64}}}
    document[D]["accuracy"] = entry(value, [value, value]) | {"measured_on": on, "right_per_class": dict(answers)}
    for form in ("original", "disentangled", "served"):
        document["lossless"][form]["accuracy"] = value
    return evidence(quality=document, **changes)


def rules(text: str) -> Policy:
    return policy(("min = 0.8\n", ""), WIDE, ("[score]\n", f"[classes]\n{text}\n[score]\n"))


def ruling(before: Answers, now: Answers, text: str = "max_drop = 0.9") -> Check:
    verdict = run(measured(now), measured(before), policy=rules(text))
    return next(check for check in verdict.checks if check.name == "classes.drop")


ALL_RIGHT = {f"class {i}": "1111" for i in range(30)}


# The statistic


def test_the_drop_of_a_class_worked_by_hand() -> None:
    (drop,) = class_drops({"cat": "11110"}, {"cat": "10001"})
    assert (drop.images, drop.newly_wrong, drop.newly_right) == (5, 3, 1)
    assert drop.drop == pytest.approx(4 / 5 - 2 / 5)
    none, three = ClassDrop("", 4, 0, 0), ClassDrop("", 4, 3, 0)
    assert none.interval[1] == pytest.approx(1 - 0.0125 ** (1 / 4))  # P(none of 4) = (1 - p)^4
    assert three.interval[1] == pytest.approx((1 - 0.0125) ** (1 / 4))  # P(at most 3 of 4) = 1 - p^4
    assert none.interval[0] == -none.interval[1]


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_are_those_of_scipy(case: tuple[int, int]) -> None:
    theirs = binomtest(*case).proportion_ci(0.975, "exact")
    assert share_limits(*case) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=9), min_size=1, max_size=9))
def test_drops_weighted_by_images_are_the_drop_of_the_accuracy(classes: list[list[tuple[bool, bool]]]) -> None:
    before, now = (
        {str(c): "".join("01"[pair[side]] for pair in pairs) for c, pairs in enumerate(classes)} for side in (0, 1)
    )
    pairs = [pair for row in classes for pair in row]
    total = (sum(first for first, _ in pairs) - sum(second for _, second in pairs)) / len(pairs)
    drops = class_drops(before, now)
    assert sum(drop.images * drop.drop for drop in drops) / len(pairs) == pytest.approx(total)
    assert all(drop.interval[0] <= drop.drop <= drop.interval[1] for drop in drops)


def missed(images: int, wrong: float, right: float, upper: Any) -> float:
    """The exact probability that ``upper(k, g)`` is below the true drop ``wrong - right``."""
    total = 0.0
    for k in range(images + 1):
        for g in range(images + 1 - k):
            ways = math.factorial(images) / math.factorial(k) / math.factorial(g) / math.factorial(images - k - g)
            chance = ways * wrong**k * right**g * max(1 - wrong - right, 0.0) ** (images - k - g)
            total += chance * (upper(k, g) < wrong - right - 1e-12)
    return total


@pytest.mark.parametrize("images", [1, 2, 4, 7])
def test_a_true_drop_is_beyond_the_upper_bound_in_at_most_one_case_of_forty(images: int) -> None:
    bounds = {(k, g): ClassDrop("", images, k, g).interval[1] for k in range(images + 1) for g in range(images + 1 - k)}
    grid = [(p / 20, q / 20) for p in range(21) for q in range(21 - p)]
    assert max(missed(images, p, q, lambda k, g: bounds[k, g]) for p, q in grid) <= 0.025


def test_the_usual_interval_of_paired_answers_does_not_hold_its_level_with_four_images() -> None:
    def tango(wrong: int, right: int) -> float:
        before = np.arange(4) < wrong
        return paired_difference_interval(before, (np.arange(4) >= wrong) & (np.arange(4) < wrong + right))[1]

    bounds = {(k, g): tango(k, g) for k in range(5) for g in range(5 - k)}
    assert max(missed(4, p / 50, 0.0, lambda k, g: bounds[k, g]) for p in range(51)) > 0.05


@pytest.mark.parametrize("allowed", [0.05, 0.25, 0.5, 0.7, 0.99])
def test_fewest_images_that_can_show_a_drop_to_be_small(allowed: float) -> None:
    needed = images_needed(allowed)
    assert ClassDrop("", needed, 0, 0).interval[1] <= allowed
    assert needed == 1 or ClassDrop("", needed - 1, 0, 0).interval[1] > allowed


# The measurement


def test_accuracy_keeps_the_answers_of_each_class_in_the_images_order() -> None:
    labels = np.array([2, 0, 2, 2, 0])
    answers = np.array([2, 0, 1, 2, 2])
    result = accuracy(np.eye(3)[answers], labels, ["a", "b", "c"])
    assert result.right_per_class == {"a": "10", "c": "101"}
    assert DimensionResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    old = {key: value for key, value in result.to_json().items() if key != "right_per_class"}
    assert DimensionResult.from_json(old).right_per_class == {}


# The rule


def test_two_classes_that_change_places_are_stopped_where_accuracy_is_not() -> None:
    rng = np.random.default_rng(0)
    before = {f"class {i}": "".join(rng.choice(["0", "1"], 4, p=[0.3, 0.7])) for i in range(27)}
    before |= {"dalmatian": "1111", "flamingo": "0001"}
    now = dict(before, dalmatian="0000", flamingo="0000", **{f"class {i}": "1111" for i in range(3)})
    verdict = run(measured(now), measured(before), policy=rules("max_drop = 0.9"))
    (check,) = verdict.failures
    assert check.name == "classes.drop"
    assert "'dalmatian'" in check.reason
    assert (check.observed, check.threshold, check.decided_on) == (1.0, 0.9, "bound")


@pytest.mark.parametrize(
    ("now", "decide_on", "stopped"),
    [
        ("1111", "bound", False),
        ("0111", "bound", False),  # upper bound 0.848
        ("0011", "bound", True),  # 0.953
        ("0011", "point", False),
        ("0000", "point", True),
    ],
)
def test_the_worst_class_decides_on_its_bound_or_its_estimate(now: str, decide_on: str, stopped: bool) -> None:
    check = ruling(ALL_RIGHT, ALL_RIGHT | {"class 7": now}, f"max_drop = 0.9\ndecide_on = '{decide_on}'")
    assert check.outcome == ("fail" if stopped else "pass")


def test_a_drop_that_is_just_allowed_passes() -> None:
    before, now = {"a": "11110000"}, {"a": "11000000"}  # a drop of 0.25, exact in binary
    assert ruling(before, now, "max_drop = 0.25\ndecide_on = 'point'").outcome == "pass"
    assert ruling(before, now, "max_drop = 0.2499\ndecide_on = 'point'").outcome == "fail"


def test_newly_right_images_count_for_the_class() -> None:
    before, now = {"a": "1" * 50 + "0" * 50}, {"a": "0" * 15 + "1" * 35 + "1" * 15 + "0" * 35}
    assert ruling(before, now, "max_drop = 0.2").outcome == "pass"
    assert ruling(before, {"a": "0" * 15 + "1" * 35 + "0" * 50}, "max_drop = 0.2").outcome == "fail"


def test_a_class_with_too_few_images_fails_and_says_how_many_are_needed() -> None:
    check = ruling({"a": "1" * 40, "b": "11"}, {"a": "1" * 40, "b": "11"}, "max_drop = 0.5")
    assert check.outcome == "fail"
    assert "'b'" in check.reason
    assert "7 or more" in check.reason
    left_out = ruling({"a": "1" * 40, "b": "11"}, {"a": "1" * 40, "b": "11"}, "max_drop = 0.5\nmin_images = 3")
    assert left_out.outcome == "pass"
    assert "1 classes" in left_out.reason


@pytest.mark.parametrize("text", ["max_drop = 0.5\ndecide_on = 'point'", "max_drop = 0.5\nmin_images = 5"])
def test_a_rule_that_cannot_fail_on_this_baseline_fails(text: str) -> None:
    rarely = {"a": "1000", "b": "0110"}  # no class can drop by more than a half
    check = ruling(rarely, rarely, text)
    assert (check.outcome, check.observed) == ("fail", None)
    assert ruling(rarely, rarely, text + "\nseverity = 'warn'").outcome == "warn"


@given(st.lists(st.integers(0, 6), min_size=3, max_size=3), st.integers(0, 2))
def test_one_more_wrong_answer_never_turns_a_fail_into_a_pass(wrong: list[int], worse: int) -> None:
    before = {str(c): "111111" for c in range(3)}
    now = {str(c): "0" * k + "1" * (6 - k) for c, k in enumerate(wrong)}
    further = now | {str(worse): "0" * min(wrong[worse] + 1, 6) + "1" * max(5 - wrong[worse], 0)}
    if ruling(before, now, "max_drop = 0.8").outcome == "fail":
        assert ruling(before, further, "max_drop = 0.8").outcome == "fail"


A = (D, "accuracy")
UNUSABLE = [
    put(*A, "right_per_class", DROP),
    put(*A, "right_per_class", []),
    put(*A, "right_per_class", {}),
    put(*A, "right_per_class", "class 0", "1121"),
    put(*A, "right_per_class", "class 0", 1111),
    put(*A, "right_per_class", "class 0", ""),
    put(*A, "right_per_class", "class 0", "1110"),  # contradicts the accuracy
    put(*A, "right_per_class", "class 0", DROP),  # and the number of images
    put(*A, "right_per_class", "class 0", "11111"),
    put(*A, "value", math.nan),
    put(*A, "measured_on", "sets", "images", "sha256", "8" * 64),
    put(*A, "measured_on", {}),
    put(D, {}),
]


@pytest.mark.parametrize("change", UNUSABLE)
@pytest.mark.parametrize("side", ["candidate", "baseline"])
def test_answers_that_cannot_be_compared_fail(change: Any, side: str) -> None:
    sides = {"candidate": measured(ALL_RIGHT), "baseline": measured(ALL_RIGHT)}
    change(sides[side].quality)
    verdict = run(sides["candidate"], sides["baseline"], policy=rules("max_drop = 0.9\nseverity = 'warn'"))
    (check,) = [check for check in verdict.checks if check.name == "classes.drop"]
    assert (check.outcome, check.observed) == ("fail", None)  # whatever the severity, and no waiver helps


def test_two_evaluations_without_answers_fail_even_where_the_rule_only_warns() -> None:
    sides = measured(ALL_RIGHT), measured(ALL_RIGHT)
    for side in sides:
        put(*A, "right_per_class", DROP)(side.quality)
    verdict = run(*sides, policy=rules("max_drop = 0.9\nseverity = 'warn'"))
    assert [check.name for check in verdict.failures] == ["classes.drop"]


def test_answers_that_hide_behind_the_right_accuracy_fail() -> None:
    worse = measured(ALL_RIGHT | {"class 0": "0000"})
    put(*A, "right_per_class", "class 0", "2222")(worse.quality)  # neither right nor wrong; as many are right
    fewer = [measured(ALL_RIGHT), measured(ALL_RIGHT)]
    for side in fewer:  # answers to a part of the images
        put(*A, "measured_on", "sets", "images", "images", 200)(side.quality)
    for sides in ([worse, measured(ALL_RIGHT)], fewer):
        verdict = run(*sides, policy=rules("max_drop = 0.9"))
        (check,) = [check for check in verdict.checks if check.name == "classes.drop"]
        assert (check.outcome, check.observed) == ("fail", None)


def test_other_classes_or_other_numbers_of_their_images_fail() -> None:
    renamed = {f"kind {i}": "1111" for i in range(30)}
    moved = ALL_RIGHT | {"class 0": "11111", "class 1": "111"}
    for now in (renamed, moved):
        check = ruling(ALL_RIGHT, now)
        assert (check.outcome, check.observed) == ("fail", None)


def test_without_a_baseline_the_rule_stops_or_is_left_out_as_the_policy_says() -> None:
    alone = decide(measured(ALL_RIGHT), rules("max_drop = 0.9"), None, (), TODAY)
    assert (alone.state, alone.passed) == ("baseline_missing", False)
    text = rules("max_drop = 0.9").text
    only_classes = parse_policy(
        text.replace("max_drop = 0.2\n", "min = 0.1\n").replace("max_drop = 0.05\n", "").encode()
    )
    assert only_classes.compares
    assert decide(measured(ALL_RIGHT), only_classes, None, (), TODAY).state == "baseline_missing"
    first = parse_policy(text.encode() + b"[baseline]\nrequired = false\n")
    verdict = decide(measured(ALL_RIGHT), first, None, (), TODAY)
    assert verdict.passed
    assert "classes.drop" not in [check.name for check in verdict.checks]


def test_only_a_waiver_of_classes_lets_a_worse_class_through() -> None:
    worse = measured(ALL_RIGHT | {"class 3": "0000"})
    for dimension, outcome in (("classes", "waived"), ("accuracy", "fail")):
        verdict = run(worse, measured(ALL_RIGHT), (waiver(dimension=dimension),), policy=rules("max_drop = 0.9"))
        (check,) = [check for check in verdict.checks if check.name == "classes.drop"]
        assert check.outcome == outcome


# Policies


@pytest.mark.parametrize("text", ["", "max_drop = 0", "max_drop = 1", "max_drop = 0.5\nmin_images = 0", "min = 0.5"])
def test_a_rule_on_classes_that_cannot_fail_or_pass_is_refused_when_read(text: str) -> None:
    with pytest.raises(UsageError, match="test"):
        parse_policy(rules("max_drop = 0.5").text.replace("max_drop = 0.5", text).encode(), "test.toml")


def test_a_policy_says_in_words_what_it_asks_of_classes() -> None:
    read = rules("max_drop = 0.5\nmin_images = 10\nseverity = 'warn'")
    assert read.classes == ClassRule(0.5, 10, "warn", "bound")
    words = explain(read)
    assert "no class" in words
    assert "7 images" in words
    assert "fewer than 10" in words


def with_answers(bundle: Bundle, answers: Answers) -> Bundle:
    document = bundle.json("quality.json")
    images = sum(map(len, answers.values()))
    value = sum(row.count("1") for row in answers.values()) / images
    document[D]["accuracy"] |= {"value": value, "interval": [value, value], "right_per_class": dict(answers)}
    for dimension in set(document[D]) - {"params_m"}:
        document[D][dimension]["measured_on"]["sets"]["images"]["images"] = images
    for form in ("original", "disentangled", "served"):
        document["lossless"][form]["accuracy"] = value
    return bundle.add({"quality.json": json.dumps(document).encode()})


def drawn(rng: np.random.Generator, images: int) -> dict[str, str]:
    return {f"class {i}": "".join("01"[int(right)] for right in rng.random(images) < 0.9) for i in range(10)}


@pytest.mark.parametrize("images", [6, 100])
def test_a_policy_made_from_a_baseline_passes_equal_models_and_stops_a_swap(tmp_path: Path, images: int) -> None:
    rng = np.random.default_rng(1)
    before = drawn(rng, images)
    bundle = with_answers(make(tmp_path / "b", verdict=False), before)
    made = parse_policy(policy_init(bundle).encode())
    assert made.classes is not None
    assert judge(bundle, made, baseline=bundle, today=TODAY).passed
    text = f"max_drop = {made.classes.max_drop}"
    stopped = [ruling(before, drawn(rng, images), text).outcome == "fail" for _ in range(100)]
    assert sum(stopped) <= 10  # 5 % are meant, at most
    swapped = before | {"class 0": "0" * images, "class 1": "0" * images}
    assert ruling(before, swapped, text).outcome == "fail"


@pytest.mark.parametrize(
    ("answers", "fewest"), [({"a": "1", "b": "1"}, None), ({"a": "1"} | {str(i): "1" * 30 for i in range(9)}, 30)]
)
def test_a_policy_asks_nothing_of_classes_with_too_few_images(
    tmp_path: Path, answers: Answers, fewest: int | None
) -> None:
    bundle = with_answers(make(tmp_path / "b", verdict=False), answers)
    made = parse_policy(policy_init(bundle).encode())
    assert (None if made.classes is None else made.classes.min_images) == fewest


def test_an_evaluation_without_answers_gives_a_policy_without_a_rule_on_classes(tmp_path: Path) -> None:
    assert parse_policy(policy_init(make(tmp_path / "b", verdict=False)).encode()).classes is None


# Bundles and presets


answer_pairs = st.lists(st.tuples(*[st.sampled_from(["01", "10", "11"])] * 2), min_size=2, max_size=4)


@given(answer_pairs, st.randoms(use_true_random=False))
def test_the_order_of_keys_decides_nothing(pairs: list[tuple[str, str]], random: Random) -> None:
    """Of classes that drop equally one is named: JSON keeps no order, so no sentence may depend on one."""
    sides = [measured({f"class {i}": row for i, row in enumerate(side)}) for side in zip(*pairs, strict=True)]
    others = [replace(side, quality=shuffled(side.quality, random)) for side in sides]
    assert run(*others, policy=rules("max_drop = 0.9")) == run(*sides, policy=rules("max_drop = 0.9"))


def test_a_verdict_on_classes_is_reached_again_from_what_it_holds(tmp_path: Path) -> None:
    before, now = ALL_RIGHT, ALL_RIGHT | {"class 2": "0111", "class 10": "0111"}
    baseline = with_answers(make(tmp_path / "b", verdict=False), before)
    bundle = with_answers(make(tmp_path / "c", verdict=False), now)
    for more in ("", "[classes]\nmax_drop = 0.9\n"):
        rule = parse_policy(b'schema_version = 1\nname = "p"\n[suite]\nbudget = 200\n' + CLAIMS + more.encode())
        verdict = judge(bundle, rule, baseline=baseline, today=date(2026, 1, 15))
        assert verdict.passed, verdict.failures
        again = Verdict.from_json(json.loads(verdict_json(verdict)))
        assert judged_again(bundle, again) == verdict
        assert ("right_per_class" in json.dumps(again.baseline)) == bool(more)


CLAIMS = b"[dimensions.accuracy]\nmax_drop = 0.2\n[lossless.claims]\nsums = 1e-4\nrewrite = 0\nruntime = 1e-4\n"


@pytest.mark.parametrize(("answers", "stopped"), [("0111", False), ("0000", True)])
def test_a_preset_that_breaks_one_class_is_not_served(tmp_path: Path, answers: str, stopped: bool) -> None:
    edits = [{"id": "fc2/u0.s1", "action": "scale", "value": 2.0, "patches": 0}]
    bundle = make(tmp_path / "b", verdict=False).add({"presets.json": json.dumps({"bright": edits}).encode()})
    bundle = with_answers(bundle, ALL_RIGHT)
    from elude.handlers.admission.admission import preset_hashes

    steered = with_answers(make(tmp_path / "c", verdict=False), ALL_RIGHT | {"class 2": answers}).json("quality.json")
    steered["subject"] = {"artefact_sha256": bundle.artefact_sha256, "edits_sha256": preset_hashes(bundle)["bright"]}
    bundle = bundle.add({"presets_quality.json": json.dumps({"presets": {"bright": steered}}).encode()})
    text = b'schema_version = 1\nname = "p"\n[suite]\nbudget = 200\n' + CLAIMS + b"[classes]\nmax_drop = 0.9\n"
    preset = judge(bundle, parse_policy(text), baseline=bundle, today=TODAY).presets["bright"]
    assert [check.name for check in preset.checks if check.outcome == "fail"] == ["classes.drop"] * stopped
    exempt = parse_policy(text + b'[presets]\nexempt = ["accuracy"]\n[dimensions.params_m]\nmax = 1\n')
    assert judge(bundle, exempt, baseline=bundle, today=TODAY).presets["bright"].passed
