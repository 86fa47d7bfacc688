"""May this bundle be served? Its verdict, its signature and its presets are checked again where it runs.

Loads no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from elude.handlers.admission import clock
from elude.handlers.admission.requirements import Requirements
from elude.handlers.admission.trust import SIGNATURE, VERDICT, TrustedKey, check_signature
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError
from elude.handlers.requests.presets import PRESETS

_JUDGE_AGAIN = "Run 'elude gate' on this bundle."
_OUTCOMES = ("pass", "fail", "warn", "waived")


@dataclass(frozen=True)
class Admission:
    """What was found: an ``admitted`` bundle may be served without reserve; else ``reason`` says what it lacks.

    Attributes:
        presets: names of the admitted ones.
        refused: of the presets that the verdict stopped or does not cover, why.
        signed_by: owner of the key that signed, None if no trusted key did.
        signature: what is known of the signature, in words.
        valid_until: last day on which verdict and key hold, None without end. A server that runs
            longer must ask ``current``.
        required: whether only an admitted bundle may be served here.
        free_steering: whether requests may bring edits of their own.
    """

    admitted: bool
    reason: str
    presets: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    signed_by: str | None = None
    signature: str = "not signed"
    valid_until: date | None = None
    required: bool = False
    free_steering: bool = True

    def current(self, today: date | None = None) -> bool:
        """Whether the verdict still holds."""
        return self.valid_until is None or (today or clock.today()) <= self.valid_until

    def require_current(self, today: date | None = None) -> None:
        """GateError if what this bundle is served by has ended since it was loaded."""
        if self.required and not self.current(today):
            raise GateError(f"What this model may be served by ended on {self.valid_until}.", _JUDGE_AGAIN)

    def require_preset(self, name: str) -> None:
        """GateError, with the reason, if a preset may not be served here."""
        if name in self.refused or (self.required and name not in self.presets):
            raise GateError(f"Preset {name!r} may not be served. {self.refused.get(name, 'It was not judged.')}")

    def to_json(self) -> dict[str, Any]:
        """For ``describe``; what is not known is left out."""
        held = self.admitted and self.current()
        known = {
            "signed_by": self.signed_by,
            "valid_until": None if self.valid_until is None else self.valid_until.isoformat(),
        }
        state = {
            "admitted": held,
            "reason": self.reason if held or not self.admitted else f"ended on {self.valid_until}",
        }
        state |= {"required": self.required, "signature": self.signature, "free_steering": self.free_steering}
        lists = {"presets": sorted(self.presets), "refused_presets": dict(self.refused)}
        return state | lists | {name: value for name, value in known.items() if value is not None}


UNCHECKED = Admission(False, "was not checked")


def admit(bundle: Bundle, requirements: Requirements, *, today: date | None = None) -> Admission:
    """Check a bundle, opened with ``verify=True``, against what is required. (``archives`` is for ``require_archive``.)

    Raises:
        GateError: it does not fulfil ``requirements``.
    """
    day = today or clock.today()
    found = _ruling(bundle, requirements, day)
    key, signature = _signer(bundle, requirements, day)
    ends = [found.valid_until, key.valid_until if key is not None and requirements.signature else None]
    return replace(
        found,
        signed_by=None if key is None else key.owner,
        signature=signature,
        valid_until=min((day for day in ends if day is not None), default=None),
        required=requirements.any,
        free_steering=requirements.steers_freely,
    )


def _ruling(bundle: Bundle, requirements: Requirements, today: date) -> Admission:
    try:
        verdict = check_verdict(bundle, requirements.policies, today=today)
    except GateError as error:
        if requirements.any:
            raise
        return Admission(
            False, str(error).replace(str(bundle.root), "this bundle")
        )  # callers need not know the server's folders
    presets = admitted_presets(bundle, verdict)
    return Admission(
        True,
        f"passed the policy {verdict['policy']['name']!r} on {verdict['judged_on']}",
        presets,
        {name: _why_refused(verdict, name) for name in preset_hashes(bundle) if name not in presets},
        valid_until=None if verdict["valid_until"] is None else date.fromisoformat(verdict["valid_until"]),
    )


def require_archive(contents: bytes, requirements: Requirements) -> None:
    """Hold an archive's ``contents.json``, whose hashes were compared with the files, against the archives that may
    be loaded.

    Raises:
        GateError: it is none of them.
    """
    if requirements.archives is not None and hashlib.sha256(contents).hexdigest() not in requirements.archives:
        raise GateError(
            "This archive was never admitted.", "Admit its bundle to the store, and serve the archive from there."
        )


def _signer(bundle: Bundle, requirements: Requirements, day: date) -> tuple[TrustedKey | None, str]:
    """The trusted key that signed, and the state in words; where no signature is required, what is wrong with it is
    only said.
    """
    if not requirements.signature and not bundle.has(SIGNATURE):
        return None, "not signed"
    if not requirements.signature and not requirements.keys:
        return None, "signed; not checked, as no key is trusted here"
    try:
        key = check_signature(bundle, requirements.keys, today=day)
    except GateError as error:
        if requirements.signature:
            raise
        return None, f"does not count: {error.message}"
    return key, f"signed by {key.owner}, key {key.key_id}"


def check_verdict(bundle: Bundle, policies: Sequence[str] = (), *, today: date | None = None) -> dict[str, Any]:
    """The parsed verdict, if it passed, is about these bytes and these measurements, and has not ended.

    Raises:
        GateError: otherwise, with the reason.
    """
    if not bundle.has(VERDICT):
        raise GateError(f"{bundle.root} has no verdict.", _JUDGE_AGAIN)
    try:
        verdict: dict[str, Any] = bundle.json(VERDICT)
        subject, checks, policy = verdict["subject"], verdict["checks"], verdict["policy"]["sha256"]
        outcomes = [check["outcome"] for check in checks]
        until = None if verdict["valid_until"] is None else date.fromisoformat(verdict["valid_until"])
        found = (subject["quality_sha256"], subject["equivalence_sha256"])
        claimed, state, artefact, version = (
            verdict["passed"],
            verdict["state"],
            subject["artefact_sha256"],
            verdict["schema_version"],
        )
    except (BundleError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateError(f"The verdict of {bundle.root} cannot be used: {error!r}.", _JUDGE_AGAIN) from error
    if type(version) is not int or version != 1:
        raise GateError(
            f"The verdict of {bundle.root} cannot be used: schema_version {version!r} is not 1.", _JUDGE_AGAIN
        )
    if artefact != bundle.artefact_sha256:
        raise GateError(
            f"The verdict is about artefact {str(artefact)[:12]}, not {bundle.artefact_sha256[:12]}.", _JUDGE_AGAIN
        )
    if found != (bundle.manifest.files.get("quality.json"), bundle.manifest.files.get("equivalence.json")):
        raise GateError("The verdict is about other measurements than the bundle's.", _JUDGE_AGAIN)
    if (
        claimed is not True
        or state != "judged"
        or not outcomes
        or any(outcome not in _OUTCOMES for outcome in outcomes)
    ):
        raise GateError(
            f"The gate stopped this bundle ({str(state).replace('_', ' ')}).", "Read verdict.json or report.html."
        )
    if "fail" in outcomes:
        raise GateError("The verdict says that it passed, and one of its checks failed.", _JUDGE_AGAIN)
    if until is not None and until < (today or clock.today()):
        raise GateError(f"The verdict rests on a waiver that ended on {until}.", _JUDGE_AGAIN)
    if policies and policy not in policies:
        raise GateError(
            f"The verdict was given by policy {str(policy)[:12]}, which does not count here.",
            "Judge it by one that does.",
        )
    return verdict


def preset_hashes(bundle: Bundle) -> dict[str, str]:
    """Name to hash of what the preset says in presets.json; its ruling names it.

    Raises:
        BundleError: the file is not an object.
    """
    presets = bundle.json(PRESETS) if bundle.has(PRESETS) else {}
    if not isinstance(presets, dict):
        raise BundleError(f"{bundle.root}: {PRESETS} must be an object of named lists of edits.")
    return {
        name: hashlib.sha256(json.dumps(edits, sort_keys=True).encode()).hexdigest() for name, edits in presets.items()
    }


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


def _why_refused(verdict: Mapping[str, Any], name: str) -> str:
    ruling = verdict["presets"].get(name) if isinstance(verdict.get("presets"), dict) else None
    if not isinstance(ruling, dict):
        return "The verdict does not rule on it."
    checks = ruling.get("checks")
    failed = (
        [check for check in checks if isinstance(check, dict) and check.get("outcome") == "fail"]
        if isinstance(checks, list)
        else []
    )
    return str(failed[0].get("reason")) if failed else "The verdict's ruling is not about it as it is now."
