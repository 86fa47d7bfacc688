"""May this bundle be served? Its verdict, its signature and its presets are checked again where it runs. Loads no torch.

What is asked for comes from the server's configuration, never from the archive: whoever can put an archive in place must not be able to
lower the bar.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from handlers.bundle import Bundle
from handlers.errors import BundleError, GateError, UsageError
from handlers.steering import PRESETS
from handlers.trust import TrustedKey, check_signature, read_keys

ENVIRONMENT = "ELUDE_ADMISSION"  # path of the requirements file
VERDICT = "verdict.json"
_JUDGE_AGAIN = "Run 'elude gate' on this bundle."
_OUTCOMES = ("pass", "fail", "warn", "waived")


@dataclass(frozen=True)
class Requirements:
    """What a server, or a store, asks of a bundle.

    Attributes:
        verdict: it must have passed the gate; ``signature`` includes that.
        signature: one of ``keys`` must have signed it.
        policies: sha256 of the policies that count; empty for any. Else a lax policy of one's own would do.
    """

    verdict: bool = False
    signature: bool = False
    keys: tuple[TrustedKey, ...] = ()
    policies: tuple[str, ...] = ()

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Requirements:
        """From the file that ``ELUDE_ADMISSION`` names; nothing is required where it is not set.

        Raises:
            UsageError: it cannot be read, or is not of this form. A server must not start then.
        """
        path = (os.environ if environment is None else environment).get(ENVIRONMENT, "")
        if not path:
            return cls()
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UsageError(f"{ENVIRONMENT}={path} cannot be read: {error}.", "Name a file as docs/store.md describes it.") from error

    @classmethod
    def from_json(cls, data: Any) -> Requirements:
        """From the content of a requirements file; unknown keys are refused, as a misspelt one would require nothing."""
        remedy = "See docs/store.md for its form."
        known = {"schema_version", "require_verdict", "require_signature", "policies", "trust"}
        if not isinstance(data, dict) or not set(data) <= known or data.get("schema_version") != 1:
            raise UsageError(f"The admission requirements are not of schema_version 1 with keys out of {', '.join(sorted(known))}.", remedy)
        verdict, signature = data.get("require_verdict", True), data.get("require_signature", False)
        policies = data.get("policies", [])
        if type(verdict) is not bool or type(signature) is not bool:
            raise UsageError("require_verdict and require_signature are true or false.", remedy)
        if not isinstance(policies, list) or not all(isinstance(policy, str) for policy in policies):
            raise UsageError("policies must be a list of sha256.", remedy)
        keys = read_keys(data.get("trust", []))
        if signature and not keys:
            raise UsageError("A signature is required and no key is trusted.", "Add the public key to 'trust'.")
        return cls(verdict, signature, keys, tuple(policies))


@dataclass(frozen=True)
class Admission:
    """What was found: an ``admitted`` bundle may be served without reserve; else ``reason`` says what it lacks.

    Attributes:
        presets: names of the admitted ones.
        signed_by: owner of the key that signed, None if no signature was asked for.
        valid_until: last day on which the verdict holds, None without end. A server that runs longer must ask ``current``.
    """

    admitted: bool
    reason: str
    presets: frozenset[str] = frozenset()
    signed_by: str | None = None
    valid_until: date | None = None

    def current(self, today: date | None = None) -> bool:
        """Whether the verdict still holds."""
        return self.valid_until is None or (today or datetime.now(UTC).date()) <= self.valid_until


def admit(bundle: Bundle, requirements: Requirements, *, today: date | None = None) -> Admission:
    """Check a bundle, opened with ``verify=True``, against what is required.

    Raises:
        GateError: it does not fulfil ``requirements``.
    """
    day = today or datetime.now(UTC).date()
    required = requirements.verdict or requirements.signature or bool(requirements.policies)
    try:
        verdict = check_verdict(bundle, requirements.policies, today=day)
    except GateError as error:
        if required:
            raise
        return Admission(False, str(error))
    signed_by = check_signature(bundle, requirements.keys, today=day).owner if requirements.signature else None
    until = verdict["valid_until"]
    return Admission(
        True,
        f"passed the policy {verdict['policy']['name']!r} on {verdict['judged_on']}",
        admitted_presets(bundle, verdict),
        signed_by,
        None if until is None else date.fromisoformat(until),
    )


def check_verdict(bundle: Bundle, policies: Sequence[str] = (), *, today: date | None = None) -> dict[str, Any]:
    """The parsed verdict, if it passed, is about these bytes and these measurements, and has not ended.

    Raises:
        GateError: otherwise, with the reason.
    """
    if not bundle.has(VERDICT):
        raise GateError(f"{bundle.root} has no verdict.", _JUDGE_AGAIN)
    try:
        verdict: dict[str, Any] = json.loads(bundle.path(VERDICT).read_bytes())
        subject, checks, policy = verdict["subject"], verdict["checks"], verdict["policy"]["sha256"]
        outcomes = [check["outcome"] for check in checks]
        until = None if verdict["valid_until"] is None else date.fromisoformat(verdict["valid_until"])
        found = (subject["quality_sha256"], subject["equivalence_sha256"])
        claimed, state, artefact, version = verdict["passed"], verdict["state"], subject["artefact_sha256"], verdict["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateError(f"The verdict of {bundle.root} cannot be used: {error!r}.", _JUDGE_AGAIN) from error
    if type(version) is not int or version != 1:
        raise GateError(f"The verdict of {bundle.root} cannot be used: schema_version {version!r} is not 1.", _JUDGE_AGAIN)
    if artefact != bundle.artefact_sha256:
        raise GateError(f"The verdict is about artefact {str(artefact)[:12]}, not {bundle.artefact_sha256[:12]}.", _JUDGE_AGAIN)
    if found != (bundle.manifest.files.get("quality.json"), bundle.manifest.files.get("equivalence.json")):
        raise GateError("The verdict is about other measurements than the bundle's.", _JUDGE_AGAIN)
    if claimed is not True or state != "judged" or not outcomes or any(outcome not in _OUTCOMES for outcome in outcomes):
        raise GateError(f"The gate stopped this bundle ({str(state).replace('_', ' ')}).", "Read verdict.json or report.html.")
    if "fail" in outcomes:
        raise GateError("The verdict says that it passed, and one of its checks failed.", _JUDGE_AGAIN)
    if until is not None and until < (today or datetime.now(UTC).date()):
        raise GateError(f"The verdict rests on a waiver that ended on {until}.", _JUDGE_AGAIN)
    if policies and policy not in policies:
        raise GateError(f"The verdict was given by policy {str(policy)[:12]}, which does not count here.", "Judge it by one that does.")
    return verdict


def preset_hashes(bundle: Bundle) -> dict[str, str]:
    """Name to hash of what the preset says in presets.json; its ruling names it.

    Raises:
        BundleError: the file is not an object.
    """
    presets = bundle.json(PRESETS) if bundle.has(PRESETS) else {}
    if not isinstance(presets, dict):
        raise BundleError(f"{bundle.root}: {PRESETS} must be an object of named lists of edits.")
    return {name: hashlib.sha256(json.dumps(edits, sort_keys=True).encode()).hexdigest() for name, edits in presets.items()}


def admitted_presets(bundle: Bundle, verdict: Mapping[str, Any]) -> frozenset[str]:
    """The presets that the verdict let pass, if they are still as they were when it was given."""
    rulings = verdict.get("presets")
    if not isinstance(rulings, dict):
        return frozenset()
    return frozenset(name for name, sha256 in preset_hashes(bundle).items() if _let_pass(rulings.get(name), sha256))


def _let_pass(ruling: Any, sha256: str) -> bool:
    checks = ruling.get("checks") if isinstance(ruling, dict) and ruling.get("passed") is True else None
    if not isinstance(checks, list) or not checks or ruling.get("edits_sha256") != sha256:
        return False
    return all(isinstance(check, dict) and check.get("outcome") in ("pass", "warn", "waived") for check in checks)
