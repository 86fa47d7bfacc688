"""Signatures: only a trusted key, in its time, on exactly these bytes; and what a server may require of a bundle."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from _stores import TODAY, admit, make
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from elude.handlers.admission.admission import Admission, require_archive
from elude.handlers.admission.admission import admit as check
from elude.handlers.admission.requirements import ENVIRONMENT, Requirements
from elude.handlers.admission.trust import TrustedKey, check_signature, read_keys
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.model_store.admission import require_verdict
from elude.model_store.archive import package
from elude.model_store.signing import keygen, load_signer, sign_bundle
from elude.model_store.store import Store


def key(folder: Path, name: str = "ada", **options: Any) -> tuple[Any, TrustedKey]:
    entry = keygen(folder / f"{name}.pem", owner=name, **options)
    return load_signer(folder / f"{name}.pem"), read_keys([entry])[0]


def signed(folder: Path) -> tuple[Bundle, TrustedKey, Any]:
    signer, trusted = key(folder)
    bundle = make(folder / "b")
    return sign_bundle(bundle, require_verdict(bundle), signer), trusted, signer


def test_a_signature_is_found_right_by_another_reading_of_the_standard(tmp_path: Path):
    bundle, trusted, _ = signed(tmp_path)
    assert check_signature(bundle, [trusted]) == trusted
    envelope = bundle.json("signature.json")
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    message = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    Ed25519PublicKey.from_public_bytes(trusted.public_key).verify(
        base64.b64decode(envelope["signatures"][0]["sig"]), message
    )
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicate"]["verificationResult"] == "PASSED"
    assert statement["predicate"]["policy"]["digest"]["sha256"] == bundle.json("verdict.json")["policy"]["sha256"]


def test_keys_are_private_never_overwritten_and_may_be_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ELUDE_KEY_PASSPHRASE", "secret")
    signer, trusted = key(tmp_path)
    assert (tmp_path / "ada.pem").stat().st_mode & 0o777 == 0o600
    assert signer.key_id == trusted.key_id
    assert "PRIVATE" not in repr(signer)
    monkeypatch.delenv("ELUDE_KEY_PASSPHRASE")
    with pytest.raises(UsageError, match="cannot be read"):
        load_signer(tmp_path / "ada.pem")
    with pytest.raises(UsageError, match="never overwritten"):
        keygen(tmp_path / "ada.pem", owner="ada")


def test_no_byte_of_a_signature_can_be_changed(tmp_path: Path):
    bundle, trusted, _ = signed(tmp_path)
    good = bundle.path("signature.json").read_bytes()
    text = json.loads(good)
    for field, content in (("payload", text["payload"]), ("sig", text["signatures"][0]["sig"])):
        raw = base64.b64decode(content)
        for at in range(0, len(raw), 1 if field == "sig" else 7):
            changed = base64.b64encode(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).decode()
            other = json.loads(good)
            (other if field == "payload" else other["signatures"][0])[field] = changed
            with pytest.raises(GateError):
                check_signature(_with(bundle, json.dumps(other).encode()), [trusted])


def _with(bundle: Bundle, signature: bytes) -> Bundle:
    """The same bundle with other bytes of the signature on disk, as if its manifest said so."""
    (bundle.root / "signature.json").write_bytes(signature)
    return bundle


def test_another_type_of_payload_is_about_something_else(tmp_path: Path):
    bundle, trusted, _ = signed(tmp_path)
    with pytest.raises(GateError, match="about another bundle"):
        check_signature(
            bundle.add({"signature.json": json.dumps(bundle.json("signature.json") | {"payloadType": "x"}).encode()}),
            [trusted],
        )


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b'{"payload": 3}', b'{"payload":"e30=","payloadType":"x","signatures":[]}']
)
def test_junk_is_no_signature(tmp_path: Path, content: bytes):
    bundle, trusted, _ = signed(tmp_path)
    with pytest.raises(GateError):
        check_signature(bundle.add({"signature.json": content}), [trusted])


def test_who_and_when_and_what(tmp_path: Path):
    bundle, trusted, _ = signed(tmp_path)
    _, other = key(tmp_path, "eve")
    with pytest.raises(GateError, match="not signed by a trusted key"):
        check_signature(bundle, [other])
    with pytest.raises(GateError, match="not signed by a trusted key"):  # eve's key under ada's name
        check_signature(bundle, [replace(other, key_id=trusted.key_id)])
    ended = replace(trusted, valid_until=TODAY - timedelta(days=1))
    with pytest.raises(GateError, match="not signed by a trusted key"):
        check_signature(bundle, [ended])
    assert check_signature(bundle, [ended], today=TODAY - timedelta(days=1)) == ended
    with pytest.raises(GateError, match="about another bundle"):
        check_signature(bundle.add({"report.html": b"new"}), [trusted])
    with pytest.raises(GateError, match="is not signed"):
        check_signature(make(tmp_path / "c"), [trusted])
    moved = make(tmp_path / "d", content=b"other").add({"signature.json": bundle.path("signature.json").read_bytes()})
    with pytest.raises(GateError, match="about another bundle"):
        check_signature(moved, [trusted])


def test_what_a_server_requires(tmp_path: Path):
    bundle, trusted, _ = signed(tmp_path)
    bare, policy = make(tmp_path / "c", verdict=False), bundle.json("verdict.json")["policy"]["sha256"]
    assert check(bare, Requirements()) == Admission(
        False, "this bundle has no verdict. Run 'elude gate' on this bundle."
    )
    for requirements in (
        Requirements(verdict=True),
        Requirements(signature=True, keys=(trusted,)),
        Requirements(policies=(policy,)),
    ):
        assert check(bundle, requirements).admitted
        with pytest.raises(GateError, match="no verdict"):
            check(bare, requirements)
    assert check(bundle, Requirements(signature=True, keys=(trusted,))).signed_by == "ada"
    with pytest.raises(GateError, match="does not count here"):
        check(bundle, Requirements(policies=("0" * 64,)))
    until = TODAY + timedelta(days=3)
    assert check(bundle, Requirements(signature=True, keys=(replace(trusted, valid_until=until),))).valid_until == until
    states = [check(bundle, Requirements(keys=keys)).signature for keys in ((), (trusted,), (key(tmp_path, "eve")[1],))]
    assert [state.split(",")[0].split(":")[0] for state in states] == [
        "signed; not checked",
        "signed by ada",
        "does not count",
    ]
    waived = make(tmp_path / "d", accuracy=0.7, waive_until=TODAY)
    admission = check(waived, Requirements(verdict=True))
    assert (admission.valid_until, admission.current(TODAY), admission.current(TODAY + timedelta(days=1))) == (
        TODAY,
        True,
        False,
    )
    with pytest.raises(GateError, match="ended"):
        check(waived, Requirements(verdict=True), today=TODAY + timedelta(days=1))


def test_requirements_come_from_the_servers_environment_and_are_read_strictly(tmp_path: Path):
    _, trusted = key(tmp_path)
    trust = [json.loads((tmp_path / "ada.pub.json").read_text())]
    path = tmp_path / "admission.json"
    path.write_text(json.dumps({"schema_version": 1, "require_signature": True, "trust": trust, "policies": ["a"]}))
    assert Requirements.load({}) == Requirements()
    assert Requirements.load({ENVIRONMENT: str(path)}) == Requirements(True, True, (trusted,), ("a",))
    for wanted in (
        Requirements(True, True, (trusted,), ("a",), ("b",), True),
        Requirements(),
        Requirements(True, archives=()),
    ):
        assert Requirements.from_json(json.loads(json.dumps(wanted.to_json()))) == wanted
    for wrong in (
        {"schema_version": 2},
        {"require_verdict": 1},
        {"require_signature": True},
        {"policies": "a"},
        {"archives": "a"},
        {"archives": [1]},
        {"free_steering": 1},
        {"require_signature": 0},
        {"require_verdicts": True},
        {"trust": {}},
        {"trust": [{"key_id": "x"}]},
        {"trust": [trust[0] | {"key_id": "0" * 16}]},
        {"trust": [trust[0] | {"valid_until": "soon"}]},
        [],
    ):
        path.write_text(json.dumps({"schema_version": 1, **wrong} if isinstance(wrong, dict) else wrong))
        with pytest.raises(UsageError):
            Requirements.load({ENVIRONMENT: str(path)})
    with pytest.raises(UsageError, match="cannot be read"):
        Requirements.load({ENVIRONMENT: str(tmp_path / "absent")})


def test_any_requirement_asks_for_a_verdict_and_ends_free_steering(tmp_path: Path):
    bare, trusted = make(tmp_path / "b", verdict=False), key(tmp_path)[1]
    asks = (
        Requirements(True),
        Requirements(signature=True, keys=(trusted,)),
        Requirements(policies=("a",)),
        Requirements(archives=()),
    )
    for requirements in asks:
        assert (requirements.any, requirements.steers_freely) == (True, False)
        assert replace(requirements, free_steering=True).steers_freely
        with pytest.raises(GateError, match="no verdict"):
            check(bare, requirements)
    assert (Requirements().any, Requirements().steers_freely) == (False, True)
    assert not Requirements(free_steering=False).steers_freely


def test_only_listed_archives_may_be_loaded(tmp_path: Path):
    sha256 = hashlib.sha256(b"contents").hexdigest()
    require_archive(b"contents", Requirements())
    require_archive(b"contents", Requirements(archives=("0" * 64, sha256)))
    for archives in ((), ("0" * 64,)):
        with pytest.raises(GateError, match="never admitted"):
            require_archive(b"contents", Requirements(archives=archives))


def test_what_a_store_lets_a_server_load(tmp_path: Path):
    store, bundle = Store(tmp_path / "store"), make(tmp_path / "b")
    version = store.admit(bundle.root, who="a", why="b", make_archive=True)
    assert version.archive is not None
    assert store.serving_requirements() == Requirements(
        True, archives=()
    )  # nothing is in production yet, so nothing may be loaded
    store.promote(version.id, who="a", why="b")
    with zipfile.ZipFile(version.archive) as archive:
        expected = hashlib.sha256(archive.read("contents.json")).hexdigest()
    assert (
        store.serving_requirements()
        == store.requirements_for([version.archive])
        == Requirements(True, archives=(expected,))
    )
    assert store.serving_requirements("candidate") == Requirements(True, archives=())
    own = package(bundle, tmp_path / "own.mar", name="own", version="1.0")
    with pytest.raises(GateError, match="never admitted"):
        store.requirements_for([version.archive, own])


def test_a_store_that_requires_signatures(tmp_path: Path):
    signer, trusted = key(tmp_path)
    eve, _ = key(tmp_path, "eve")
    bundle, requirements = make(tmp_path / "b"), Requirements(True, True, (trusted,))
    store = Store(tmp_path / "store", requirements)
    for refused in (None, eve):
        with pytest.raises(GateError, match="sign"):
            store.admit(bundle.root, who="a", why="b", signer=refused)
    version = store.admit(bundle.root, who="a", why="b", signer=signer, make_archive=True)
    assert (
        store.admit(bundle.root, who="a", why="b", signer=signer, make_archive=True).id == version.id == "tiny-model/1"
    )
    with pytest.raises(GateError, match="no trusted key signs"):
        store.promote(version.id, who="a", why="b")
    store.promote(version.id, who="a", why="b", signer=signer)
    assert [entry.key_id for entry in store.record()] == [trusted.key_id] * 2
    assert store.verify()
    fetched = store.fetch("tiny-model/production", tmp_path / "served")
    assert fetched.archive is not None
    assert store.require_admitted(fetched.archive).id == "tiny-model/1"
    with pytest.raises(GateError, match="never admitted"):
        store.require_admitted(package(bundle, tmp_path / "own.mar", name="x", version="1.0"))
    # a whole new record, well chained, by someone without the key
    path = tmp_path / "store" / "record" / "00000000.json"
    forged = replace(store.record()[0], why="forged")
    path.write_bytes(forged.to_bytes())
    with pytest.raises(BundleError, match="not signed by a trusted key"):
        store.record()


def test_only_named_policies_count_in_a_store_that_names_some(tmp_path: Path):
    bundle = make(tmp_path / "b")
    policy = bundle.json("verdict.json")["policy"]["sha256"]
    admit(Store(tmp_path / "one", Requirements(True, policies=(policy,))), bundle)
    with pytest.raises(GateError, match="does not count here"):
        admit(Store(tmp_path / "two", Requirements(True, policies=("0" * 64,))), bundle)


def test_keys_end(tmp_path: Path):
    _, trusted = key(tmp_path, valid_until=date(2030, 1, 31))
    assert trusted.valid_until == date(2030, 1, 31)
