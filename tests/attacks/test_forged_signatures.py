"""Signatures that are genuine and say something else, and records whose dates were made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from _stores import TODAY, make

from elude.handlers.admission.requirements import Requirements
from elude.handlers.admission.trust import TrustedKey, check_signature, read_keys, signed_content
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.model_store import store as store_module
from elude.model_store.admission import require_verdict
from elude.model_store.links import provenance
from elude.model_store.records import Entry
from elude.model_store.signing import Signer, envelope, keygen, load_signer, sign_bundle
from elude.model_store.store import Store


def key(folder: Path, name: str = "ada", **options: Any) -> tuple[Signer, TrustedKey]:
    entry = keygen(folder / f"{name}.pem", owner=name, **options)
    return load_signer(folder / f"{name}.pem"), read_keys([entry])[0]


def statement_of(bundle: Bundle, signer: Signer) -> dict[str, Any]:
    """The statement that an admission signs."""
    import base64

    signed = sign_bundle(bundle, require_verdict(bundle), signer)
    statement: dict[str, Any] = json.loads(base64.b64decode(signed.json("signature.json")["payload"]))
    return statement


def test_the_unchanged_statement_counts(tmp_path: Path) -> None:
    signer, trusted = key(tmp_path)
    bundle = make(tmp_path / "b")
    statement = statement_of(bundle, signer)
    again = Bundle.open(bundle.root).add({"signature.json": envelope(statement, signer)})
    assert check_signature(again, [trusted]) == trusted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["predicate"].update(verificationResult="FAILED"), "FAILED"),
        (lambda s: s["predicate"].update(verificationResult=None), "None"),
        (lambda s: s["predicate"].pop("verificationResult"), "cannot be used"),
        (lambda s: s["predicate"]["policy"]["digest"].update(sha256="0" * 64), "another policy"),
        (lambda s: s["predicate"].pop("policy"), "cannot be used"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "another kind"),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "another kind"),
        (lambda s: s["subject"].pop(), "another bundle"),
        (lambda s: s["subject"].append({"name": "more", "digest": {"sha256": "0" * 64}}), "another bundle"),
        (lambda s: s["subject"].append(s["subject"][0] | {"digest": {"sha256": "0" * 64}}), "another bundle"),
        (lambda s: s.update(subject=[]), "another bundle"),
    ],
)
def test_a_genuine_signature_of_another_statement_does_not_count(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    signer, trusted = key(tmp_path)
    bundle = make(tmp_path / "b")
    statement = statement_of(bundle, signer)
    change(statement)
    forged = Bundle.open(bundle.root).add({"signature.json": envelope(statement, signer)})
    with pytest.raises(GateError, match=words):
        check_signature(forged, [trusted])


def test_a_provenance_statement_is_no_admission(tmp_path: Path) -> None:
    signer, trusted = key(tmp_path)
    bundle = make(tmp_path / "b")
    assert {entry["name"] for entry in provenance(bundle)["subject"]} == set(signed_content(bundle))
    signed = bundle.add({"signature.json": envelope(provenance(bundle), signer)})
    with pytest.raises(GateError, match="another kind"):
        check_signature(signed, [trusted])


def test_a_payload_in_which_a_key_is_there_twice_is_refused(tmp_path: Path) -> None:
    signer, trusted = key(tmp_path)
    bundle = make(tmp_path / "b")
    statement = statement_of(bundle, signer)
    text = json.dumps(statement).replace('"verificationResult"', '"verificationResult": "FAILED", "verificationResult"')

    def signed(_: object, signer: Signer) -> bytes:
        import base64

        from elude.handlers.admission.trust import PAYLOAD_TYPE, pre_authentication

        payload = text.encode()
        signatures = [
            {"keyid": signer.key_id, "sig": base64.b64encode(signer.sign(pre_authentication(payload))).decode()}
        ]
        content = {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": signatures}
        return json.dumps(content).encode()

    forged = Bundle.open(bundle.root).add({"signature.json": signed(None, signer)})
    with pytest.raises(GateError, match="twice"):
        check_signature(forged, [trusted])


def at(day: date, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's clock says noon of ``day``."""
    instant = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).isoformat(timespec="seconds")
    monkeypatch.setattr(store_module, "now", lambda: instant)


def test_a_clock_that_is_set_back_does_not_date_an_entry_before_its_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    version = store.admit(make(tmp_path / "b").root, who="a", why="b")
    at(TODAY - timedelta(days=30), monkeypatch)
    store.promote(version.id, who="a", why="b")
    first, second = store.record()
    assert second.when == first.when


def test_a_key_that_has_ended_cannot_sign_by_setting_the_clock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer, trusted = key(tmp_path)
    version = Store(tmp_path / "store", Requirements(True, True, (trusted,))).admit(
        make(tmp_path / "b").root, who="a", why="b", signer=signer
    )
    ended = replace(trusted, valid_until=TODAY - timedelta(days=10))
    at(TODAY - timedelta(days=20), monkeypatch)
    with pytest.raises((GateError, BundleError)):
        Store(tmp_path / "store", Requirements(True, True, (ended,))).promote(
            version.id, who="a", why="b", signer=signer
        )
    assert len(Store(tmp_path / "store").record()) == 1


def rewritten(store: Path, number: int, **changes: Any) -> None:
    """The holder of the folder writes an entry again, with its hash and as the last one of its chain."""
    path = store / "record" / f"{number:08d}.json"
    content = json.loads(path.read_text())
    content.pop("sha256")
    path.chmod(0o644)
    path.write_bytes(Entry(**(content | changes)).to_bytes())


def test_a_record_with_an_entry_before_its_predecessor_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    version = store.admit(make(tmp_path / "b").root, who="a", why="b")
    store.promote(version.id, who="a", why="b")
    earlier = (store.record()[0].instant - timedelta(seconds=1)).isoformat(timespec="seconds")
    rewritten(tmp_path / "store", 1, when=earlier)
    with pytest.raises(BundleError, match="before the entry before"):
        store.record()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "../../outside/1"},
        {"version": "tiny-model/1/.."},
        {"version": "tiny-model/01"},
        {"version": "tiny-model"},
        {"when": "yesterday"},
        {"when": "2026-01-01T00:00:00"},
        {"when": "0001-01-01T00:00:00+23:59"},
        {"action": "delete"},
        {"action": "promote", "stage": "../x"},
        {"action": "promote", "stage": None},
        {"stage": "production"},
        {"manifest_sha256": "../" * 20},
        {"archive_sha256": ""},
        {"sequence": -1},
    ],
)
def test_entries_that_no_store_writes_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    Store(tmp_path / "store").admit(make(tmp_path / "b").root, who="a", why="b")
    rewritten(tmp_path / "store", 0, **changes)
    with pytest.raises(BundleError, match="was changed"):
        Store(tmp_path / "store").record()


def test_a_retired_key_counts_up_to_the_entry_that_was_its_last(tmp_path: Path) -> None:
    signer, trusted = key(tmp_path)
    requirements = Requirements(True, True, (trusted,))
    store = Store(tmp_path / "store", requirements)
    version = store.admit(make(tmp_path / "b").root, who="a", why="b", signer=signer)
    retired = replace(trusted, last_entry=0)
    pinned = Store(tmp_path / "store", Requirements(True, True, (retired,)))
    assert len(pinned.record()) == 1
    with pytest.raises(GateError, match="No trusted key"):
        pinned.promote(version.id, who="a", why="b", signer=signer)
    store.promote(version.id, who="thief", why="b", signer=signer)  # whoever holds the key writes it all the same
    with pytest.raises(BundleError, match="not signed by a trusted key"):
        pinned.record()
    assert read_keys([retired.to_json()]) == (retired,)


@pytest.mark.parametrize("change", [{"valid_untill": "2020-01-01"}, {"last_entry": "1"}, {"last_entry": True}])
def test_a_misspelt_limit_of_a_key_is_not_no_limit(tmp_path: Path, change: dict[str, Any]) -> None:
    _, trusted = key(tmp_path)
    with pytest.raises(UsageError):
        read_keys([trusted.to_json() | change])
