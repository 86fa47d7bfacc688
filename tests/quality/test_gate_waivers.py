"""A waiver lets one measured value of one artefact through until a day, and nothing else."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest
from _gate import DROP, OTHER, TODAY, D, bad_accuracy, entry, evidence, put, quality, run, waiver


def test_a_waiver_lets_one_dimension_through_and_is_shown():
    verdict = run(bad_accuracy(), waivers=(waiver(),))
    assert verdict.passed
    assert verdict.valid_until == "2026-02-01"
    assert verdict.waivers[0]["owner"] == "Ada"
    assert {check.outcome for check in verdict.checks if check.name == "accuracy.limit"} == {"waived"}
    assert run(bad_accuracy(), waivers=(waiver(expires=TODAY),)).passed


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": date(2026, 1, 14)},
        {"artefact_sha256": OTHER},
        {"dimension": "calibration_error"},
        {"dimension": "lossless"},
    ],
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


def test_what_cannot_be_waived_fails_even_where_nothing_else_does():
    assert [check.name for check in run(waivers=(waiver(dimension="lossless"),)).failures] == ["waiver.lossless"]


def test_a_waiver_of_what_passes_changes_nothing():
    verdict = run(waivers=(waiver(),))
    assert verdict.waivers == ()
    assert not any(check.outcome == "waived" for check in verdict.checks)


def test_of_several_waivers_the_one_that_ends_first_decides():
    document = quality()
    document[D]["accuracy"] = entry(0.78, [0.76, 0.80])
    put(D, "calibration_error", "value", 0.2)(document)
    later = waiver(dimension="calibration_error", expires=date(2026, 3, 1))
    for order in ((waiver(), later), (later, waiver())):
        verdict = run(evidence(quality=document), waivers=order)
        assert verdict.passed
        assert verdict.valid_until == "2026-02-01"
