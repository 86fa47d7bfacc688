"""Is a steering preset fit to be served? Judged like a release, and compared with the model it steers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elude.handlers.admission.admission import preset_hashes
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError
from elude.quality.gate.checks import check_alike, check_drop, check_images, check_limit, present, same_suite
from elude.quality.gate.class_checks import check_classes
from elude.quality.gate.evidence import QUALITY_SCHEMA_VERSION, Evidence, mapping, quoted
from elude.quality.gate.verdict import Check, PresetRuling
from elude.quality.policies.policy import Policy, PresetRule

PRESETS_QUALITY = "presets_quality.json"


@dataclass(frozen=True)
class PresetEvidence:
    """One preset: its name, the hash of its edits as they are now, and its measurements if there are any."""

    name: str
    edits_sha256: str
    quality: Mapping[str, Any] | None


def gather_presets(bundle: Bundle) -> tuple[PresetEvidence, ...]:
    """The presets of a bundle with their measurements; what cannot be read counts as not measured."""
    content: Any = {}
    if bundle.has(PRESETS_QUALITY):
        try:
            content = bundle.json(PRESETS_QUALITY)
        except BundleError:  # not JSON: no preset was measured, and that fails each of them
            content = {}
    measured = mapping(mapping(content).get("presets"))
    return tuple(
        PresetEvidence(name, sha256, mapping(measured.get(name)) or None)
        for name, sha256 in sorted(preset_hashes(bundle).items())
    )


def rule_on(preset: PresetEvidence, candidate: Evidence, policy: Policy) -> PresetRuling:
    """Judge one preset by the policy's dimensions; the drops are compared with the unsteered model of the same
    bundle.
    """
    if preset.quality is None:
        return PresetRuling(
            preset.edits_sha256, (Check("preset.measured", "fail", "This preset was not measured: evaluate it."),)
        )
    steered = Evidence(preset.name, candidate.artefact_sha256, preset.quality, None)
    subject, version = mapping(preset.quality.get("subject")), preset.quality.get("schema_version")
    known = type(version) is int and version == QUALITY_SCHEMA_VERSION
    checks = [
        present(
            "preset.schema",
            known,
            "Its measurements are of the known version.",
            f"They have schema_version {quoted(version)}: evaluate the presets again.",
        ),
        present(
            "preset.artefact",
            subject.get("artefact_sha256") == candidate.artefact_sha256,
            "It was measured on exactly these bytes.",
            "It was measured on different bytes from this bundle's.",
        ),
        present(
            "preset.edits",
            subject.get("edits_sha256") == preset.edits_sha256,
            "It was measured with exactly these edits.",
            "Its edits changed since it was measured.",
        ),
        present(
            "preset.suite",
            same_suite(steered, candidate),
            "It was measured with the same suite as the model without it.",
            "It was measured with a different suite from the model without it.",
        ),
    ]
    for rule in policy.dimensions:
        if rule.dimension in policy.presets.exempt:
            continue
        measured = steered.measurement(rule.dimension, rule.factor)
        checks += check_limit(rule, measured)
        if measured is None:
            continue
        checks += check_images(rule, steered, policy)
        alike = check_alike(rule, steered, candidate)
        checks.append(alike)
        if rule.compares and alike.outcome == "pass":
            checks += check_drop(rule, measured, candidate.measurement(rule.dimension, rule.factor))
    if policy.classes is not None and "accuracy" not in policy.presets.exempt:
        checks.append(check_classes(policy.classes, steered, candidate))
    return PresetRuling(preset.edits_sha256, tuple(checks))


def preset_outcomes(rulings: Mapping[str, PresetRuling], rule: PresetRule) -> list[Check]:
    """One check per preset for the bundle's own verdict."""
    checks = []
    for name, ruling in rulings.items():
        if ruling.passed:
            checks.append(
                Check(f"preset.{name}", "pass", f"Preset {name!r} passed and may be served.", severity=rule.severity)
            )
            continue
        why = next((check.reason for check in ruling.checks if check.outcome == "fail"), "Nothing was checked.")
        reason = f"Preset {name!r} may not be served. {why}"
        checks.append(Check(f"preset.{name}", rule.severity, reason, severity=rule.severity))
    return checks
