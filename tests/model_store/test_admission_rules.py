"""What a server and a store let pass, rule by rule: faults of the deciding code that no other test noticed, found by
mutation testing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from _stores import TODAY, make

from elude.handlers.admission.admission import (
    UNCHECKED,
    Admission,
    admit,
    admitted_presets,
    check_verdict,
    preset_hashes,
)
from elude.handlers.admission.requirements import Requirements
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import GateError, UsageError
from elude.model_store.admission import contents_sha256, require_verdict
from elude.model_store.signing import keygen, load_signer, sign_bundle


def rewritten(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> Bundle:
    verdict = bundle.json("verdict.json")
    change(verdict)
    return bundle.add({"verdict.json": json.dumps(verdict).encode()})


def all_pass(verdict: dict[str, Any]) -> None:
    """A verdict written by hand that contradicts itself nowhere."""
    for check in verdict["checks"]:
        check["outcome"] = "pass"
    verdict |= {"passed": True}


def test_a_verdict_written_by_hand_does_not_enter_a_store(tmp_path: Path):
    forged = rewritten(make(tmp_path / "b", accuracy=0.5), all_pass)
    assert check_verdict(forged)["passed"]  # the server cannot know, which is why signatures exist
    with pytest.raises(GateError, match="stopped this bundle"):
        require_verdict(forged)


def test_a_passed_verdict_that_was_made_to_last_longer_does_not_enter_either(tmp_path: Path):
    longer = rewritten(
        make(tmp_path / "b", accuracy=0.7, waive_until=TODAY), lambda verdict: verdict.update(valid_until=None)
    )
    with pytest.raises(GateError, match="does not follow"):
        require_verdict(longer)
    renamed = rewritten(make(tmp_path / "c"), lambda verdict: verdict["checks"][0].update(reason="better"))
    with pytest.raises(GateError, match="does not follow"):
        require_verdict(renamed)
    broken = rewritten(make(tmp_path / "d"), lambda verdict: verdict["policy"].update(toml="nothing"))
    with pytest.raises(GateError, match="cannot be used"):
        require_verdict(broken)


def test_what_cannot_be_an_archive_has_no_contents(tmp_path: Path):
    (tmp_path / "x.mar").write_bytes(b"no zip")
    with pytest.raises(UsageError, match="not a model archive"):
        contents_sha256(tmp_path / "x.mar")


@pytest.mark.parametrize("version", [2, 0, True, "1", None])
def test_a_server_reads_one_version_of_verdicts(tmp_path: Path, version: Any):
    with pytest.raises(GateError, match="cannot be used"):
        check_verdict(rewritten(make(tmp_path / "b"), lambda verdict: verdict.update(schema_version=version)))


@pytest.mark.parametrize(
    "change",
    [
        lambda verdict: verdict.update(state="not_evaluated"),
        lambda verdict: verdict["checks"][0].update(outcome="fine"),
        lambda verdict: verdict.update(passed=1),
        lambda verdict: verdict.update(checks=[]),
    ],
)
def test_a_server_takes_no_other_word_for_passed(tmp_path: Path, change: Callable[[dict[str, Any]], None]):
    with pytest.raises(GateError, match="The gate stopped this bundle"):
        check_verdict(rewritten(make(tmp_path / "b"), change))


def test_one_failed_check_among_passed_ones_stops_a_preset(tmp_path: Path):
    bundle = make(tmp_path / "b").add({"presets.json": b'{"bright": []}'})
    ruling = {
        "passed": True,
        "edits_sha256": preset_hashes(bundle)["bright"],
        "checks": [{"outcome": "pass"}, {"outcome": "warn"}],
    }
    assert admitted_presets(bundle, {"presets": {"bright": ruling}}) == {"bright"}
    lie = ruling | {"checks": [{"outcome": "pass"}, {"outcome": "fail", "reason": "worse"}, {"outcome": "pass"}]}
    assert admitted_presets(bundle, {"presets": {"bright": lie}}) == frozenset()


@pytest.mark.parametrize(
    ("rulings", "words"),
    [
        ({}, "does not rule on it"),
        ([], "does not rule on it"),
        (
            {"bright": {"passed": True, "checks": [{"outcome": "pass"}], "edits_sha256": "other"}},
            "not about it as it is now",
        ),
        ({"bright": {"passed": False, "checks": None}}, "not about it as it is now"),
        (
            {"bright": {"passed": False, "checks": [{"outcome": "pass"}, {"outcome": "fail", "reason": "too dark"}]}},
            "too dark",
        ),
    ],
)
def test_why_a_preset_is_refused(tmp_path: Path, rulings: Any, words: str):
    bundle = make(tmp_path / "b").add({"presets.json": b'{"bright": []}'})
    assert (
        words
        in admit(rewritten(bundle, lambda verdict: verdict.update(presets=rulings)), Requirements()).refused["bright"]
    )


def test_a_passed_verdict_is_no_signature(tmp_path: Path):
    entry = keygen(tmp_path / "ada.pem", owner="Ada")
    trusted = Requirements.from_json({"schema_version": 1, "trust": [entry]}).keys
    bundle = make(tmp_path / "b")
    with pytest.raises(GateError, match="is not signed"):
        admit(bundle, Requirements(signature=True, keys=trusted))
    assert admit(bundle, Requirements(keys=trusted)).signature == "not signed"
    signed = sign_bundle(bundle, require_verdict(bundle), load_signer(tmp_path / "ada.pem"))
    with pytest.raises(GateError, match="not signed by a trusted key"):
        admit(signed, Requirements(signature=True))
    assert admit(signed, Requirements(signature=True, keys=trusted)).signed_by == "Ada"


def test_what_ends_first_counts(tmp_path: Path):
    trusted = Requirements.from_json({"schema_version": 1, "trust": [keygen(tmp_path / "ada.pem", owner="Ada")]}).keys[
        0
    ]
    tomorrow, later = TODAY + timedelta(days=1), TODAY + timedelta(days=2)
    for verdict_until, key_until in ((tomorrow, later), (later, tomorrow), (tomorrow, None)):
        bundle = make(tmp_path / f"{verdict_until}{key_until}", accuracy=0.7, waive_until=verdict_until)
        signed = sign_bundle(bundle, require_verdict(bundle), load_signer(tmp_path / "ada.pem"))
        keys = (replace(trusted, valid_until=key_until),)
        assert admit(signed, Requirements(signature=True, keys=keys)).valid_until == tomorrow
        assert admit(signed, Requirements(True, keys=keys)).valid_until == verdict_until  # no signature was asked for


def test_what_an_admission_forbids():
    yesterday, tomorrow = TODAY - timedelta(days=1), TODAY + timedelta(days=1)
    for required, until, forbidden in (
        (True, yesterday, True),
        (True, TODAY, False),
        (True, None, False),
        (False, yesterday, False),
    ):
        admission = Admission(True, "passed", required=required, valid_until=until)
        if forbidden:
            with pytest.raises(GateError, match="ended on"):
                admission.require_current()
        else:
            admission.require_current()
    assert not Admission(True, "passed", valid_until=TODAY).current(tomorrow)
    ruled = Admission(True, "passed", frozenset({"good"}), {"bad": "worse"})
    for admission, served in (
        (ruled, {"good", "new"}),
        (replace(ruled, required=True), {"good"}),
        (UNCHECKED, {"good", "bad", "new"}),
    ):
        for name in ("good", "bad", "new"):
            if name in served:
                admission.require_preset(name)
            else:
                with pytest.raises(GateError, match="worse" if name == "bad" else "not judged"):
                    admission.require_preset(name)


def test_what_describe_tells():
    told = Admission(
        True, "passed", frozenset({"b", "a"}), {"c": "worse"}, "Ada", "signed by Ada", TODAY, True, False
    ).to_json()
    assert told == {
        "admitted": True,
        "reason": "passed",
        "required": True,
        "signature": "signed by Ada",
        "free_steering": False,
        "presets": ["a", "b"],
        "refused_presets": {"c": "worse"},
        "signed_by": "Ada",
        "valid_until": TODAY.isoformat(),
    }
    yesterday = TODAY - timedelta(days=1)
    assert Admission(True, "passed", valid_until=yesterday).to_json()["reason"] == f"ended on {yesterday}"
    assert UNCHECKED.to_json()["reason"] == "was not checked"
    assert not UNCHECKED.to_json()["admitted"]
