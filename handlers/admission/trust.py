"""Who vouches for a bundle: trusted keys, and the signature that travels in it.

``signature.json`` is a DSSE envelope (github.com/secure-systems-lab/dsse) around an in-toto
statement, signed with Ed25519. It is about the manifest, and so about every file but itself. It counts
only if the statement is a verification summary that says ``PASSED``, of this bundle, by the policy of the
bundle's own verdict: what else a key may have signed is not an admission.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from elude.handlers.admission import clock
from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.errors import BundleError, GateError, UsageError
from elude.handlers.files import parse_json

SIGNATURE = "signature.json"
VERDICT = "verdict.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SUMMARY_TYPE = "https://slsa.dev/verification_summary/v1"
PASSED = "PASSED"


_SIGN = "Admit the bundle with a trusted key."
_KEYGEN = "Make them with 'elude keygen'."


@dataclass(frozen=True)
class TrustedKey:
    """A public Ed25519 key, 32 bytes.

    Attributes:
        valid_until: the last day on which its signatures count, None for always. A signer dates an entry of
            a record, so this alone does not stop the holder of an ended key.
        last_entry: of a store's record, the last entry that it may have signed, None for any: given when a
            key ends, it holds whatever date a later entry has.
    """

    key_id: str
    public_key: bytes
    owner: str
    valid_until: date | None = None
    last_entry: int | None = None

    def counts(self, day: date, sequence: int | None = None) -> bool:
        """Whether a signature of that day, and at that place of a record, counts."""
        in_time = self.valid_until is None or day <= self.valid_until
        return in_time and (sequence is None or self.last_entry is None or sequence <= self.last_entry)

    def to_json(self) -> dict[str, str | int | None]:
        """As ``read_keys`` reads it."""
        public = base64.b64encode(self.public_key).decode()
        until = None if self.valid_until is None else self.valid_until.isoformat()
        content = {"key_id": self.key_id, "public_key": public, "owner": self.owner, "valid_until": until}
        return content | ({} if self.last_entry is None else {"last_entry": self.last_entry})


def read_keys(data: Any) -> tuple[TrustedKey, ...]:
    """Trusted keys from JSON: a list of objects with key_id, public_key (base64), owner, and optionally valid_until
    and last_entry.

    Raises:
        UsageError: it is not of that form, or a key_id is not its key's.
    """
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise UsageError("The trusted keys must be a list of objects.", _KEYGEN)
    try:
        return tuple(_read_key(**entry) for entry in data)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"The trusted keys cannot be used: {error}.", _KEYGEN) from error


def _read_key(
    *, key_id: str, public_key: str, owner: str, valid_until: str | None = None, last_entry: int | None = None
) -> TrustedKey:
    public = base64.b64decode(public_key, validate=True)
    if len(public) != 32 or key_id != key_id_of(public):
        raise ValueError(f"{key_id!r} does not name its own public key")
    if last_entry is not None and type(last_entry) is not int:
        raise ValueError(f"last_entry {last_entry!r} is not a number of an entry")
    return TrustedKey(
        key_id, public, str(owner), None if valid_until is None else date.fromisoformat(valid_until), last_entry
    )


def key_id_of(public_key: bytes) -> str:
    """The name of a key: the first 16 hexadecimal digits of its sha256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def signed_content(bundle: Bundle) -> dict[str, str]:
    """What a signature is about: the manifest without the signature, which hashes every other file, and the
    artefact.
    """
    files = {name: sha256 for name, sha256 in bundle.manifest.files.items() if name != SIGNATURE}
    manifest = hashlib.sha256(bundle.manifest.with_files(files).to_bytes()).hexdigest()
    return {MANIFEST: manifest, "artefact": bundle.artefact_sha256}


def pre_authentication(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The bytes that are signed (DSSE protocol, version 1.0.2)."""
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)


def check_signature(bundle: Bundle, keys: Sequence[TrustedKey], *, today: date | None = None) -> TrustedKey:
    """The trusted key that signed that exactly this bundle passed the policy of its verdict.

    Args:
        bundle: opened with verification.
        keys: those that count.
        today: the day on which a key must still count; today (UTC) by default.

    Raises:
        GateError: there is no signature, it is by no trusted key, or it says something else.
    """
    if not bundle.has(SIGNATURE):
        raise GateError(f"{bundle.root} is not signed.", _SIGN)
    try:
        envelope = bundle.json(SIGNATURE)
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [
            (entry["keyid"], base64.b64decode(entry["sig"], validate=True)) for entry in envelope["signatures"]
        ]
        _require_statement(bundle, envelope["payloadType"], parse_json(payload))
    except (BundleError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise GateError(f"The signature of {bundle.root} cannot be used: {error!r}.", _SIGN) from error
    message, day = pre_authentication(payload), today or clock.today()
    for key in keys:
        for key_id, signature in signatures:
            if key_id == key.key_id and key.counts(day) and verify(key.public_key, signature, message):
                return key
    raise GateError(f"{bundle.root} is not signed by a trusted key.", _SIGN)


def _require_statement(bundle: Bundle, payload_type: Any, statement: Any) -> None:
    """GateError unless a statement says that exactly this bundle passed exactly the policy of its verdict."""
    subjects = [(entry["name"], entry["digest"]["sha256"]) for entry in statement["subject"]]
    if payload_type != PAYLOAD_TYPE or sorted(subjects) != sorted(signed_content(bundle).items()):
        raise GateError(f"The signature of {bundle.root} is about another bundle.", _SIGN)
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, SUMMARY_TYPE):
        raise GateError(f"The signature of {bundle.root} is on another kind of statement than an admission.", _SIGN)
    summary = statement["predicate"]
    if summary["verificationResult"] != PASSED:
        raise GateError(f"The signature of {bundle.root} says {summary['verificationResult']!r}, not {PASSED}.", _SIGN)
    if summary["policy"]["digest"]["sha256"] != bundle.json(VERDICT)["policy"]["sha256"]:
        raise GateError(f"The signature of {bundle.root} is about another policy than its verdict.", _SIGN)


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature is right.

    Raises:
        GateError: the library that checks it is not installed: an unchecked signature counts for nothing.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise GateError(
            "Signatures cannot be checked: 'cryptography' is not installed.", "pip install cryptography"
        ) from error
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
