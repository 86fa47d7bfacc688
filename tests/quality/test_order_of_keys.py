"""JSON keeps no order of keys, so none may decide a sentence, a number or a choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from _gate import TODAY, D, entry, equivalence, evidence, policy, quality, shuffled
from _stores import admit, make
from hypothesis import given, settings
from hypothesis import strategies as st

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.model_store.store import Store
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.gate.judge import decide, judge
from elude.quality.gate.policy_init import policy_init
from elude.quality.gate.preset_checks import PresetEvidence
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.policies.policy import parse_policy
from elude.quality.report import write_report
from elude.quality.scores.compare import compare
from elude.quality.scores.scoring import check_alike

RULES = policy(("[score]\n", "[classes]\nmax_drop = 0.9\n[dimensions.adversarial_robustness]\nmin = 0.1\n[score]\n"))


def full(rows: list[str]) -> dict[str, Any]:
    """A ``quality.json`` with every dimension, factors, tables, and the classes' answers ``rows``."""
    images = sum(map(len, rows))
    right = sum(row.count("1") for row in rows) / images
    document = quality()
    document[D] = {
        name: entry(0.6, [0.5, 0.7], higher) | {"measured_on": measured_on(images)}
        for name, higher in HIGHER_IS_BETTER.items()
    }
    answers = {f"class {i}": row for i, row in enumerate(rows)}
    document[D]["accuracy"] |= {"value": right, "interval": [right, right], "right_per_class": answers}
    document[D]["accuracy"]["tables"] = {"accuracy_per_class": dict.fromkeys(answers, 0.5)}
    document[D]["corruption_robustness"]["tables"] = {
        "accuracy": {f"{c}/{s}": 0.1 * s for c in "ab" for s in (1, 2, 3)}
    }
    document[D]["adversarial_robustness"]["factors"] = {"fgsm": 0.3, "pgd": 0.1, "fgsm_1": 0.7, "pgd_1": 0.6}
    document["score"]["per_dimension"] = {
        name: {"z": 0.1 + 0.7 * i, "weight": 1 / 3, "contribution": 0.1} for i, name in enumerate(HIGHER_IS_BETTER)
    }
    document["score"]["missing"] = []
    document["settings"]["precisions"] = {"served": "float32", "original": "float32"}
    for form in document["lossless"]:
        document["lossless"][form] = dict.fromkeys(HIGHER_IS_BETTER, 0.6)
    return document


def measured_on(images: int) -> dict[str, Any]:
    sets = {"images": {"images": images, "sha256": "9" * 64}, "blurred": {"images": images, "made": "from images"}}
    return {"sets": sets, "severities": [1, 3], "attacks": {"fgsm": {"epsilon": 0.03}, "pgd": {"steps": 10}}}


def places(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a JSON document."""
    inside = value.items() if isinstance(value, Mapping) else []
    return [path for key, item in inside for path in [(*so_far, key), *places(item, (*so_far, key))]]


PLACES = places(full(["10", "11", "01"]))
keyed = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.none(), min_size=2)
junk = keyed | st.lists(keyed, min_size=1, max_size=2) | st.sampled_from([None, 0, -3.5, "", [0.2, 0.1]])
damages = st.lists(st.tuples(st.sampled_from(PLACES), junk), max_size=3)
answers = st.lists(st.sampled_from(["01", "10", "11"]), min_size=3, max_size=3)


def document(rows: list[str], damage: list[tuple[tuple[Any, ...], Any]]) -> dict[str, Any]:
    """A good document with some things in it replaced."""
    whole = full(rows)
    for path, value in damage:
        place: Any = whole
        for key in path[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[path[-1]] = value
    return whole


@settings(max_examples=50)
@given(st.tuples(answers, damages), st.tuples(answers, damages), st.tuples(answers, damages), st.integers(0, 99))
def test_a_verdict_is_the_same_to_the_byte(now: Any, before: Any, steered: Any, seed: int) -> None:
    documents = [document(*side) for side in (now, before, steered)]
    verdicts = []
    for candidate, baseline, preset, claims in (
        (*documents, equivalence()),
        shuffled([*documents, equivalence()], Random(seed)),
    ):
        sides = [evidence(quality=candidate, equivalence=claims), evidence(quality=baseline)]
        presets = [PresetEvidence("bright", "f" * 64, preset)]
        verdicts.append(verdict_json(decide(sides[0], RULES, sides[1], (), TODAY, presets)).decode())
    assert verdicts[0] == verdicts[1]


@settings(max_examples=50)
@given(st.tuples(answers, damages), st.tuples(answers, damages), st.integers(0, 99))
def test_a_comparison_is_the_same(first: Any, second: Any, seed: int) -> None:
    def said(sides: list[dict[str, Any]]) -> object:
        try:
            first, second = (QualityReport.from_json(side | {"versions": {}}) for side in sides)
            return compare(first, second).to_json()
        except UsageError as error:
            return type(error)

    documents = [document(*first), document(*second)]
    assert said(shuffled(documents, Random(seed))) == said(documents)


@pytest.mark.parametrize("seed", range(3))
def test_results_that_cannot_be_pooled_are_told_by_the_first_dimension(seed: int) -> None:
    documents = [full(["10"]), full(["10", "11"])]
    reports = [QualityReport.from_json(shuffled(side, Random(seed)) | {"versions": {}}) for side in documents]
    with pytest.raises(UsageError, match="accuracy of b cannot be compared with that of a"):
        check_alike(dict(zip("ab", reports, strict=True)))


def bundle(root: Path, quality_json: dict[str, Any]) -> Bundle:
    whole = make(root, verdict=False)
    quality_json["subject"]["artefact_sha256"] = whole.artefact_sha256
    return whole.add({"quality.json": json.dumps(quality_json).encode()})


def test_a_first_policy_and_a_report_are_the_same(tmp_path: Path) -> None:
    texts = []
    for seed in range(3):
        measured = bundle(tmp_path / str(seed), shuffled(full(["1110", "1111", "0111"]), Random(seed)))
        report = write_report(measured).read("report.html").decode()
        texts.append((policy_init(measured), report.replace(str(measured.root), "")))
    assert texts[0] == texts[1] == texts[2]


def test_a_release_that_its_own_first_policy_passes_enters_the_store(tmp_path: Path) -> None:
    """Evaluated, gated against itself, admitted: a store reaches the verdict again from files whose keys are sorted."""
    classes = ["zebra", "cat", "Äffchen", "ant", "10", "9"]  # in no order that sorting would give
    document = full(["1" * 38 + "00"] * len(classes))
    answers = document[D]["accuracy"]["right_per_class"]
    document[D]["accuracy"]["right_per_class"] = dict(zip(classes, answers.values(), strict=True))
    release = bundle(tmp_path / "b", document)
    made = parse_policy(policy_init(release).encode())
    assert made.classes is not None
    verdict = judge(release, made, baseline=release)
    assert verdict.passed, verdict.failures
    release = release.add({"verdict.json": verdict_json(verdict)})
    version = admit(Store(tmp_path / "store"), release)
    assert version.id.startswith("tiny")
