"""Who vouches for a bundle: trusted keys, and the signature that travels in it.

``signature.json`` is a DSSE envelope (github.com/secure-systems-lab/dsse) around an in-toto
statement, signed with Ed25519. It is about the manifest, and so about every file but itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from elude.handlers.admission import clock
from elude.handlers.bundle.bundle import MANIFEST, Bundle
from elude.handlers.errors import GateError, UsageError

SIGNATURE = "signature.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class TrustedKey:
    """A public Ed25519 key, 32 bytes, whose signatures count until the end of the day ``valid_until`` (None:
    always).
    """

    key_id: str
    public_key: bytes
    owner: str
    valid_until: date | None = None

    def to_json(self) -> dict[str, str | None]:
        """As ``read_keys`` reads it."""
        public = base64.b64encode(self.public_key).decode()
        until = None if self.valid_until is None else self.valid_until.isoformat()
        return {"key_id": self.key_id, "public_key": public, "owner": self.owner, "valid_until": until}


def read_keys(data: Any) -> tuple[TrustedKey, ...]:
    """Trusted keys from JSON: a list of objects with key_id, public_key (base64), owner and optionally valid_until.

    Raises:
        UsageError: it is not of that form, or a key_id is not its key's.
    """
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise UsageError("The trusted keys must be a list of objects.", "Make them with 'elude keygen'.")
    keys = []
    try:
        for entry in data:
            public = base64.b64decode(entry["public_key"], validate=True)
            until = entry.get("valid_until")
            keys.append(
                TrustedKey(
                    entry["key_id"], public, str(entry["owner"]), None if until is None else date.fromisoformat(until)
                )
            )
            if len(public) != 32 or entry["key_id"] != key_id_of(public):
                raise UsageError(
                    f"Trusted key {entry['key_id']!r} does not name its own public key.", "Make it with 'elude keygen'."
                )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"The trusted keys cannot be used: {error!r}.", "Make them with 'elude keygen'.") from error
    return tuple(keys)


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
    """The trusted key that signed exactly this bundle.

    Raises:
        GateError: there is no signature, it is by no trusted key, or it is about something else.
    """
    remedy = "Admit the bundle with a trusted key."
    if not bundle.has(SIGNATURE):
        raise GateError(f"{bundle.root} is not signed.", remedy)
    try:
        envelope = json.loads(bundle.path(SIGNATURE).read_bytes())
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [
            (entry["keyid"], base64.b64decode(entry["sig"], validate=True)) for entry in envelope["signatures"]
        ]
        subjects = {entry["name"]: entry["digest"]["sha256"] for entry in json.loads(payload)["subject"]}
        payload_type = envelope["payloadType"]
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise GateError(f"The signature of {bundle.root} cannot be used: {error!r}.", remedy) from error
    if payload_type != PAYLOAD_TYPE or subjects != signed_content(bundle):
        raise GateError(f"The signature of {bundle.root} is about another bundle.", remedy)
    day = today or clock.today()
    for key in keys:
        for key_id, signature in signatures:
            in_time = key.valid_until is None or day <= key.valid_until
            if key_id == key.key_id and in_time and verify(key.public_key, signature, pre_authentication(payload)):
                return key
    raise GateError(f"{bundle.root} is not signed by a trusted key.", remedy)


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
