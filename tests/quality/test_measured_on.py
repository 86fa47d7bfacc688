"""A number counts together with its images, corruptions, severities and attacks; unlike numbers are never compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _gate import D, evidence, policy, put, quality, run
from _stores import make
from hypothesis import given
from hypothesis import strategies as st

from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.measured_on import images_in, unlike
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.gate.policy_init import policy_init
from elude.quality.policies.policy import parse_policy
from elude.quality.scores.compare import compare
from elude.quality.scores.scoring import own_pool
from elude.quality.subjects.subject import CallableSubject
from elude.quality.subjects.torch_subject import TorchSubject
from elude.quality.suites.image_sets import PixelSet
from elude.quality.suites.suite import Suite

PREPROCESS = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.5,) * 3, (0.25,) * 3)
CLASSES = ("dark", "light")


def images(count: int = 60) -> PixelSet:
    labels = np.arange(count) % 2
    noise = np.random.default_rng(0).normal(0, 60, (count, 8, 8, 3))
    pixels = np.clip(60 + 130 * labels[:, None, None, None] + noise, 0, 255)
    return PixelSet(pixels.astype(np.uint8), labels, CLASSES)


def subject(threshold: float = 0.5) -> CallableSubject:
    def function(x: np.ndarray) -> np.ndarray:
        light = x.mean(axis=(1, 2, 3)) - threshold
        return np.stack([-light, light], axis=1)

    return CallableSubject(function, PREPROCESS, labels=CLASSES, parameters=1000)


def measured(**options: Any) -> QualityReport:
    suite = Suite("lights", images(), ("brightness", "contrast"), (1, 5))
    dimensions = ["accuracy", "corruption_robustness", "params_m"]
    return evaluate(subject(), suite, dimensions=dimensions, resamples=20, **options)


def test_each_dimension_says_which_images_corruptions_and_severities() -> None:
    report = measured(budget=20, seed=3)
    accuracy, corruption = (report.dimensions[d].measured_on for d in ("accuracy", "corruption_robustness"))
    assert images_in(accuracy) == 60
    assert images_in(corruption) == 20
    assert (corruption["corruptions"], corruption["severities"]) == (["brightness", "contrast"], [1, 5])
    assert corruption["seed"] == 3
    assert report.dimensions["params_m"].measured_on == {}
    assert QualityReport.from_json(json.loads(report.to_bytes())).dimensions == report.dimensions


@pytest.mark.parametrize("other", [{"budget": 40}, {"budget": 20, "seed": 1}, {}])
def test_another_choice_of_images_is_not_comparable(other: dict[str, int]) -> None:
    first, second = measured(budget=20), measured(**other)
    verdicts = {change.name: change for change in compare(first, second).changes}
    assert verdicts["corruption_robustness"].verdict == "not comparable"
    assert verdicts["corruption_robustness"].reason
    assert verdicts["corruption_robustness"].difference is None
    assert verdicts["accuracy"].verdict == "same"  # all images in both


@pytest.mark.parametrize("odd", ["published", "precision"])
def test_values_as_published_or_of_mixed_precision_are_compared_with_their_like_only(odd: str) -> None:
    def usual(**options: Any) -> QualityReport:
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        one = TorchSubject(model, PREPROCESS, labels=CLASSES, precision=options.pop("precision", "float32"))
        suite = Suite("lights", images(), ("brightness",), (1,))
        return evaluate(one, suite, dimensions=["accuracy", "params_m"], resamples=0, **options)

    torch.manual_seed(0)
    plain, other = usual(), usual(**{"published": True} if odd == "published" else {"precision": "bfloat16"})
    change = next(change for change in compare(plain, other).changes if change.dimension == "accuracy")
    assert change.verdict == "not comparable"
    assert odd in change.reason
    again = next(change for change in compare(other, other).changes if change.dimension == "accuracy")
    assert again.verdict == "same"


def test_the_smallest_set_counts() -> None:
    record = {"sets": {"images": {"images": 500, "sha256": "a"}, "shifted/edge": {"images": 5, "sha256": "b"}}}
    assert images_in(record) == 5
    assert images_in({"sets": {}}) is images_in({"sets": 3}) is images_in(None) is None


def test_equal_choices_are_comparable() -> None:
    assert {c.verdict for c in compare(measured(budget=20), measured(budget=20)).changes} == {"same", "not measured"}


def test_unlike_results_make_no_pool(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, budget in zip(paths, (20, 30), strict=True):
        path.write_bytes(measured(budget=budget).to_bytes())
    with pytest.raises(UsageError, match="corruption_robustness"):
        own_pool(paths)


def test_a_report_of_the_earlier_schema_says_how_to_go_on() -> None:
    with pytest.raises(UsageError) as refused:
        QualityReport.from_json(measured().to_json() | {"schema_version": 1})
    assert "elude evaluate" in refused.value.remedy


ON = ("dimensions", "accuracy", "measured_on")
SETS = (*ON, "sets", "images")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (put(*SETS, "images", 99), "accuracy.images"),
        (put(*SETS, "images", "500"), "accuracy.images"),
        (put(*SETS, "images", True), "accuracy.images"),
        (put(*SETS, "sha256", ""), "accuracy.images"),
        (put(*ON, "sets", {}), "accuracy.images"),
        (put(*ON, {}), "accuracy.images"),
        (put(*ON, None), "accuracy.images"),
        (put(*SETS, "images", 499), "accuracy.alike"),
        (put(*SETS, "sha256", "8" * 64), "accuracy.alike"),
        (put(*ON, "sets", "more", {"images": 500, "sha256": "7" * 64}), "accuracy.alike"),
        (put(*ON, "corruptions", ["fog"]), "accuracy.alike"),
        (put(*ON, "attacks", {"fgsm": {"epsilon": 0.1}}), "accuracy.alike"),
        (put(*ON, "seed", 3), "accuracy.alike"),
        (put("settings", "seed", 3), "suite.seed"),
        (put("settings", "seed", False), "suite.seed"),
        (put("settings", "budget", 300), "suite.budget"),
        (put("settings", {}), "suite.budget"),
        (put("settings", {"budget": None}), "suite.seed"),
        (put("settings", {"seed": 0}), "suite.budget"),
        (put("settings", "published", {"settings": {}}), "suite.settings"),
        (put("settings", "precisions", {"torch": "bfloat16"}), "suite.settings"),
        (put("settings", "precisions", "float32"), "suite.settings"),
        (put(*ON, "published", True), "accuracy.alike"),
        (put(*ON, "precision", "float16"), "accuracy.alike"),
    ],
)
def test_the_gate_refuses_unlike_and_unnamed_evidence(change: Any, name: str) -> None:
    document = quality()
    change(document)
    assert [check.name for check in run(evidence(quality=document)).failures][:1] == [name]


def test_the_baseline_must_say_what_it_was_measured_on() -> None:
    document = quality()
    put(*ON, {})(document)
    assert [check.name for check in run(baseline=evidence(quality=document)).failures] == ["accuracy.alike"]


def test_budget_and_seed_are_the_policys() -> None:
    document = quality()
    put("settings", {"budget": 300, "seed": 7})(document)
    asked = policy(("min_images = 100", "min_images = 100\nbudget = 300\nseed = 7"))
    assert run(evidence(quality=document), policy=asked).passed
    assert "suite.budget" in [check.name for check in run(policy=asked).failures]


def test_a_rule_may_ask_for_a_number_of_images_of_its_own() -> None:
    more = policy(("min = 0.8\n", "min = 0.8\nmin_images = 501\n"))
    assert [check.name for check in run(policy=more).failures] == ["accuracy.images"]
    fewer = policy(("min_images = 100", "min_images = 500"), ("min = 0.8\n", "min = 0.8\nmin_images = 50\n"))
    document = quality()
    put(*SETS, "images", 60)(document)
    assert run(evidence(quality=document), evidence(quality=document), policy=fewer).passed


def test_policy_init_pins_images_budget_and_seed_and_refuses_what_does_not_name_them(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", verdict=False)
    made = parse_policy(policy_init(bundle).encode())
    assert (made.budget, made.seed) == (200, 0)
    assert {rule.min_images for rule in made.dimensions if rule.dimension != "params_m"} == {1000}
    document = bundle.json("quality.json")
    for change in (put(D, "accuracy", "measured_on", {}), put("schema_version", 1)):
        damaged = json.loads(json.dumps(document))
        change(damaged)
        with pytest.raises(EvaluationError, match="record"):
            policy_init(bundle.add({"quality.json": json.dumps(damaged).encode()}))


records = st.fixed_dictionaries(
    {
        "sets": st.dictionaries(
            st.sampled_from("ab"), st.fixed_dictionaries({"images": st.integers(1, 3), "sha256": st.sampled_from("xy")})
        )
    },
    optional={"seed": st.integers(0, 1)},
)


@given(records, records)
def test_alike_is_equal_and_named(first: dict[str, Any], second: dict[str, Any]) -> None:
    for dimension in set(DIMENSIONS) - {"params_m"}:
        assert (unlike(dimension, first, second) == "") == (first == second and bool(first["sets"]))
