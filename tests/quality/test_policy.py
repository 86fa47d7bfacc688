"""Policies and waivers are read strictly: every refusal names file, line and key."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from elude.handlers.errors import UsageError
from elude.quality.gate.waivers import load_waivers
from elude.quality.policies.policy import CLAIMS, DEFAULT_POLICY, DimensionRule, load_policy, parse_policy
from elude.quality.toml_tables import key_lines

HEAD = 'schema_version = 1\nname = "p"\n'
CLAIM_LINES = "[lossless.claims]\nsums = 1e-4\nrewrite = 0\nruntime = 1e-4\n"
GOOD = HEAD + "[dimensions.accuracy]\nmin = 0.8\n" + CLAIM_LINES


def parse(text: str):
    return parse_policy(text.encode(), "p.toml")


def test_the_default_policy_is_valid_and_gates_the_rewrite():
    policy = load_policy()
    assert policy.name == "embedded-default"
    assert set(policy.claims) == set(CLAIMS)
    assert policy.claims["rewrite"] == 0.0
    assert policy.disentangled.named["accuracy"] == 0.0
    assert {rule.dimension for rule in policy.dimensions if rule.required} >= {
        "accuracy",
        "calibration_error",
        "class_balance",
        "params_m",
    }


def test_values_arrive():
    policy = parse(
        GOOD
        + "[dimensions.calibration_error]\nmax = 0.1\nmax_drop = 0.02\nmax_drop_relative = 0.5\nseverity = 'warn'\n"
        + "required = false\ndecide_on = 'bound'\n[score]\nmin = -1\nweights = {accuracy = 1, params_m = 0.5}\n"
        + "[baseline]\nrequired = false\n"
    )
    assert policy.dimensions[0] == DimensionRule("accuracy", limit=0.8)
    assert policy.dimensions[1] == DimensionRule("calibration_error", 0.1, 0.02, 0.5, "warn", False, "bound")
    assert policy.score is not None
    assert policy.score.weights == {"accuracy": 1.0, "params_m": 0.5}
    assert not policy.baseline_required
    assert policy.compares
    assert len(policy.sha256) == 64


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("schema_version = 1\nname 'p'\n", 2, "not valid TOML"),
        (GOOD.replace("schema_version = 1", "schema_version = 2"), 1, "reads schema_version 1"),
        (GOOD.replace("schema_version = 1", "schema_version = true"), 1, "whole number"),
        (GOOD.replace('name = "p"', "name = 3"), 2, "must be a text"),
        (HEAD + CLAIM_LINES, None, "would pass anything"),
        (GOOD.replace("accuracy", "acuracy"), 3, "is not a dimension"),
        (GOOD.replace("min = 0.8", "minimum = 0.8"), 4, "is not a key"),
        (GOOD.replace("min = 0.8", "required = true"), 3, "checks nothing"),
        (GOOD.replace("min = 0.8", "min = nan"), 4, "finite"),
        (GOOD.replace("min = 0.8", "min = inf"), 4, "finite"),
        (GOOD.replace("min = 0.8", "min = true"), 4, "must be a number"),
        (GOOD.replace("min = 0.8", "min = '0.8'"), 4, "must be a number"),
        (GOOD.replace("min = 0.8", "max = 0.8"), 4, "higher is better"),
        (GOOD.replace("accuracy", "calibration_error"), 4, "lower is better"),
        (GOOD.replace("min = 0.8", "max_drop = -0.1"), 4, "between 0"),
        (GOOD.replace("min = 0.8", "min = 0.8\nmax_drop_relative = 1.5"), 5, "between 0 and 1"),
        (GOOD.replace("min = 0.8", "min = 0.8\nseverity = 'info'"), 5, "one of fail, warn"),
        (GOOD.replace("min = 0.8", "min = 0.8\nrequired = 1"), 5, "true or false"),
        (GOOD.replace("min = 0.8", "min = 0.8\ndecide_on = 'mean'"), 5, "one of point, bound"),
        (GOOD.replace("rewrite = 0\n", ""), 5, "'rewrite' is missing"),
        (GOOD.replace("rewrite = 0", "rewrite = 0\nother = 1"), 8, "is not a key"),
        (GOOD + "[lossless.served]\nexempt = ['speed']\n", 10, "list without repeats"),
        (GOOD + "[lossless.served]\naccuracy = 0\nexempt = ['accuracy']\n", 11, "exempt and has a tolerance"),
        (GOOD + "[score]\nweights = {accuracy = 1}\n", 9, "'min' is missing"),
        (GOOD + "[score]\nmin = 0\n[score.weights]\naccuracy = -1\n", 12, "between 0"),
        (GOOD + "[score]\nmin = 0\n[score.weights]\naccuracy = 0\n", 11, "all weights are 0"),
        (GOOD + "[suite]\nmin_images = 0\n", 10, "at least 1"),
        (GOOD + "[suite]\nsha256 = 'abc'\n", 10, "64 lower-case"),
        (GOOD + "[extra]\n", 9, "is not a key"),
        (GOOD + "[classes]\nmax_drop = 0.5\nleast = 3\n", 11, "is not a key"),
        (GOOD + "[score]\nmin = 0\nmost = 3\n", 11, "is not a key"),
        (GOOD + "[score]\nmin = 0\n[score.weights]\naccuracy = 1\nspeed = 1\n", 13, "is not a key"),
        (GOOD + "[lossless.served]\nspeed = 0\n", 10, "is not a key"),
        (GOOD + "[dimensions.calibration_error.factors]\n", 9, "names no factor"),
        (GOOD + "[dimensions.calibration_error.factors.ece]\nseverity = 'warn'\n", 9, "checks nothing"),
        (
            GOOD
            + "[dimensions.calibration_error]\nmax = 0.1\n"
            + "[dimensions.calibration_error.factors.ece]\nrequired = true\n",
            11,
            "checks nothing",
        ),
        (GOOD + "[dimensions.calibration_error.factors.mce]\nmax = 0.1\n", 9, "is not a key"),
        (GOOD + "[dimensions.calibration_error]\nmax = 0.1\n[dimensions.calibration_error.factors]\n", 11, "no factor"),
        (GOOD + "suite = 3\n", 9, "is not a key"),
    ],
)
def test_refusals_name_the_file_and_the_line(text: str, line: int | None, words: str):
    with pytest.raises(UsageError) as caught:
        parse(text)
    message = str(caught.value)
    assert words in message
    assert "p.toml" in message
    if line is not None:
        assert f"p.toml:{line}: " in message or f"line {line}," in message


def test_a_rule_with_a_relative_drop_alone_compares_with_a_baseline():
    assert parse(GOOD.replace("min = 0.8", "max_drop_relative = 0.1")).compares


def test_lines_of_dotted_keys_arrays_and_quoted_keys():
    lines = key_lines('a.b = 1\n["x.y"]\n[[w]]\nk = 1\n[[w]]\nk = 2\n')
    assert lines[("a", "b")] == 1
    assert lines[("w", 0, "k")] == 4
    assert lines[("w", 1, "k")] == 6


def test_a_policy_that_cannot_be_read_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_policy(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_policy(tmp_path / "latin.toml")
    assert DEFAULT_POLICY.is_file()


WAIVER = (
    "[[waiver]]\ndimension = 'accuracy'\nreason = 'r'\nowner = 'o'\nexpires = 2030-01-31\nartefact_sha256 = '"
    + "a" * 64
    + "'\n"
)


def test_waivers_are_read(tmp_path: Path):
    path = tmp_path / "waivers.toml"
    path.write_text(WAIVER)
    (waiver,) = load_waivers(path)
    assert (waiver.dimension, waiver.owner, waiver.expires) == ("accuracy", "o", date(2030, 1, 31))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (WAIVER.replace("accuracy", "twin"), 2, "one of accuracy"),
        (WAIVER.replace("reason = 'r'\n", ""), 1, "'reason' is missing"),
        (WAIVER.replace("'r'", "' '"), 3, "not empty"),
        (WAIVER.replace("2030-01-31", "'2030-01-31'"), 5, "must be a date"),
        (WAIVER.replace("2030-01-31", "2030-01-31T00:00:00"), 5, "must be a date"),
        (WAIVER.replace("aaaa", "a"), 6, "64 lower-case"),
        (WAIVER + WAIVER, 8, "second waiver"),
        (WAIVER + "until = 3\n", 7, "is not a key"),
    ],
)
def test_waivers_are_refused_with_their_line(tmp_path: Path, text: str, line: int, words: str):
    path = tmp_path / "waivers.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        load_waivers(path)
    assert f"waivers.toml:{line}: " in str(caught.value)
