"""Keys and signatures: Ed25519 by ``cryptography``.

They are checked in ``elude.handlers.admission.trust``, which runs where a bundle runs.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from elude.handlers.admission.trust import (
    PASSED,
    PAYLOAD_TYPE,
    SIGNATURE,
    STATEMENT_TYPE,
    SUMMARY_TYPE,
    TrustedKey,
    key_id_of,
    pre_authentication,
    signed_content,
)
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain
from elude.quality.gate.verdict import Verdict

PASSPHRASE = "ELUDE_KEY_PASSPHRASE"
_KEY_BYTES = 2**16  # a key file holds some hundred


@dataclass(frozen=True)
class Signer:
    """A private key; never shown."""

    key_id: str
    _key: Any = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """64 bytes, the same for the same message."""
        signature: bytes = self._key.sign(message)
        return signature


def keygen(path: Path | str, *, owner: str, valid_until: date | None = None) -> dict[str, str | int | None]:
    """Write a new private key (PEM, readable by its owner only) and beside it, as ``.pub.json``, its entry for a
    list of trusted keys.

    The file is encrypted if the environment variable ``ELUDE_KEY_PASSPHRASE`` is set.

    Returns:
        the entry: key_id, public_key, owner, valid_until.

    Raises:
        UsageError: there is such a file already, or no owner.
    """
    target = Path(path)
    public_path = target.with_suffix(".pub.json")
    if target.exists() or public_path.exists():
        raise UsageError(
            f"{target} or {public_path.name} already exists.", "Keys are never overwritten: name another file."
        )
    if not owner.strip():
        raise UsageError("A key needs an owner.", "Say whose it is.")
    serialization, ed25519 = _library()
    key = ed25519.Ed25519PrivateKey.generate()
    secret = os.environ.get(PASSPHRASE)
    encryption = serialization.BestAvailableEncryption(secret.encode()) if secret else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes_raw()
    entry = TrustedKey(key_id_of(public), public, owner, valid_until).to_json()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    public_path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    return entry


def load_signer(path: Path | str) -> Signer:
    """The private key of a file.

    Raises:
        UsageError: it cannot be read, or is no Ed25519 key.
    """
    serialization, ed25519 = _library()
    secret = os.environ.get(PASSPHRASE)
    try:
        key = serialization.load_pem_private_key(read_plain(path, _KEY_BYTES), None if not secret else secret.encode())
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"The key {path} cannot be read: {error}.", f"Make one with 'elude keygen'; {PASSPHRASE} opens it."
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} holds no Ed25519 key.", "Make one with 'elude keygen'.")
    return Signer(key_id_of(key.public_key().public_bytes_raw()), key)


def sign_bundle(bundle: Bundle, verdict: Verdict, signer: Signer) -> Bundle:
    """Add ``signature.json``: the signer says that exactly this bundle passed exactly this policy.

    Sign last: any later file undoes it.

    The statement is a SLSA verification summary (slsa.dev/verification_summary/v1), in-toto
    Statement v1, in a DSSE envelope.
    """
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(signed_content(bundle).items())
        ],
        "predicateType": SUMMARY_TYPE,
        "predicate": {
            "verifier": {"id": "urn:elude:gate"},
            "timeVerified": f"{verdict.judged_on}T00:00:00Z",
            "resourceUri": f"urn:elude:model:{verdict.model}",
            "policy": {"uri": f"urn:elude:policy:{verdict.policy_name}", "digest": {"sha256": verdict.policy_sha256}},
            "verificationResult": PASSED,
            "verifiedLevels": [],
        },
    }
    return bundle.add({SIGNATURE: envelope(statement, signer)})


def envelope(statement: dict[str, Any], signer: Signer) -> bytes:
    """The bytes of a DSSE envelope with one signature."""
    payload = json.dumps(statement, sort_keys=True).encode()
    signature = base64.b64encode(signer.sign(pre_authentication(payload))).decode()
    content = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": signer.key_id, "sig": signature}],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _library() -> tuple[Any, Any]:
    try:
        serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
        ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    except ImportError as error:
        raise UsageError(
            "Signing needs 'cryptography', which is not installed.", "pip install 'elude[sign]'"
        ) from error
    return serialization, ed25519
