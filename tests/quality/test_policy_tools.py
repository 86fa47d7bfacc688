"""The published schema says what the reader says; a made policy is valid and passes its own baseline; a policy
explains itself.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from _stores import make

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EvaluationError, UsageError
from elude.quality.gate.judge import judge
from elude.quality.gate.policy_init import policy_init
from elude.quality.policies.explain import explain
from elude.quality.policies.json_schema import policy_schema, schema_bytes
from elude.quality.policies.policy import DEFAULT_POLICY, load_policy, parse_policy

jsonschema = pytest.importorskip("jsonschema")
HEAD = 'schema_version = 1\nname = "p"\n'
CLAIM_LINES = "[lossless.claims]\nsums = 1e-4\nrewrite = 0\nruntime = 1e-4\n"
GOOD = HEAD + "[dimensions.accuracy]\nmin = 0.8\n" + CLAIM_LINES
PUBLISHED = Path(__file__).parents[2] / "docs" / "policy.schema.json"


def test_the_published_schema_is_the_present_one():
    assert PUBLISHED.read_bytes() == schema_bytes(), (
        "run: python -c 'from elude.quality.policies.json_schema import …' (see docs/gate.md)"
    )
    jsonschema.Draft202012Validator.check_schema(policy_schema())


@pytest.mark.parametrize(
    "text",
    [
        DEFAULT_POLICY.read_text(),
        GOOD,
        HEAD + CLAIM_LINES,
        HEAD + "[dimensions]\n" + CLAIM_LINES,
        GOOD.replace("schema_version = 1", "schema_version = 2"),
        GOOD.replace('name = "p"\n', ""),
        GOOD.replace('"p"', '" "'),
        GOOD.replace("accuracy", "acuracy"),
        GOOD.replace("min = 0.8", "max = 0.8"),
        GOOD.replace("min = 0.8", "required = true"),
        GOOD.replace("min = 0.8", "max_drop = -1"),
        GOOD.replace("min = 0.8", "max_drop_relative = 2"),
        GOOD.replace("min = 0.8", "min = 0.8\ndecide_on = 'mean'"),
        GOOD.replace("min = 0.8", "min = 0.8\nseverity = 'info'"),
        GOOD.replace("rewrite = 0\n", ""),
        GOOD + "[lossless.served]\nexempt = ['speed']\n",
        GOOD + "[lossless.served]\nexempt = ['accuracy', 'accuracy']\n",
        GOOD + "[lossless.served]\nexempt = ['accuracy']\ndefault = 0.1\nparams_m = 0\n",
        GOOD + "[score]\nweights = {accuracy = 1}\n",
        GOOD + "[score]\nmin = 0\nallow_partial = true\nweights = {accuracy = 1}\n",
        GOOD + "[suite]\nmin_images = 0\n",
        GOOD + "[suite]\nsha256 = 'abc'\n",
        GOOD + "[presets]\nseverity = 'fail'\nexempt = ['params_m']\n",
        GOOD + "[presets]\nseverity = 'never'\n",
        GOOD + "[classes]\nmax_drop = 0.5\nmin_images = 3\ndecide_on = 'point'\n",
        GOOD + "[classes]\nmax_drop = 1\n",
        GOOD + "[classes]\nmax_drop = 0\n",
        GOOD + "[classes]\nmin_images = 3\n",
        GOOD + "[extra]\n",
    ],
)
def test_schema_and_reader_agree(text: str):
    by_schema = jsonschema.Draft202012Validator(policy_schema()).is_valid(tomllib.loads(text))
    try:
        parse_policy(text.encode())
        by_reader = True
    except UsageError:
        by_reader = False
    assert by_schema == by_reader


def test_a_policy_made_from_a_baseline_is_valid_and_passes_it(tmp_path: Path):
    bundle = make(tmp_path / "b", verdict=False)
    text = policy_init(bundle, name='it"s')
    policy = parse_policy(text.encode())
    assert policy.name == 'it"s'
    assert {rule.dimension for rule in policy.dimensions} == set(bundle.json("quality.json")["dimensions"])
    assert judge(bundle, policy, baseline=bundle).passed
    assert "# [dimensions.shape_bias]  was not measured." in text
    quality = bundle.json("quality.json")
    quality["dimensions"]["accuracy"] |= {"value": 0.5, "interval": [0.5, 0.5]}
    baseline = make(tmp_path / "baseline", verdict=False)
    assert not judge(bundle.add({"quality.json": json.dumps(quality).encode()}), policy, baseline=baseline).passed


def test_an_unmeasured_baseline_makes_no_policy(tmp_path: Path):
    bundle: Bundle = make(tmp_path / "b", verdict=False).add({"quality.json": b"{}"})
    with pytest.raises(EvaluationError, match="not measured"):
        policy_init(bundle)


def test_a_policy_says_in_words_what_it_checks():
    words = explain(load_policy())
    for rule in load_policy().dimensions:
        assert rule.dimension in words
    assert "bit for bit" in words
    strict = parse_policy(
        (GOOD + "[score]\nmin = 0.5\nweights = {accuracy = 2}\n[presets]\nseverity = 'fail'\n").encode()
    )
    assert "at least 0.5, with weights accuracy 2; all nine" in explain(strict)
    assert "stops the release" in explain(strict)
    assert "accuracy must be at least 0.8. Else the release is stopped." in explain(strict)
