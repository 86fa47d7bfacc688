"""The gate: may this artefact be served? Reads the evidence, applies the policy, fails closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from types import MappingProxyType
from typing import Any

from elude.handlers.admission import clock
from elude.handlers.bundle.bundle import Bundle
from elude.quality.gate.checks import (
    check_alike,
    check_claims,
    check_drop,
    check_images,
    check_limit,
    check_lossless_quality,
    check_score,
    present,
    same_suite,
)
from elude.quality.gate.class_checks import check_classes
from elude.quality.gate.evidence import QUALITY_SCHEMA_VERSION, Evidence, essence, from_essence, gather, mapping, quoted
from elude.quality.gate.preset_checks import PresetEvidence, gather_presets, preset_outcomes, rule_on
from elude.quality.gate.verdict import Check, PresetRuling, State, Verdict
from elude.quality.gate.waivers import WAIVABLE, Waiver
from elude.quality.policies.policy import Policy, parse_policy

FLOAT32 = "float32"


def judge(
    bundle: Bundle | None,
    policy: Policy,
    *,
    baseline: Bundle | None = None,
    waivers: Sequence[Waiver] = (),
    today: date | None = None,
) -> Verdict:
    """Judge a bundle by a policy.

    Args:
        bundle: the candidate, opened with verification; None is the state ``candidate_missing``.
        policy: what it has to prove.
        baseline: an earlier release to compare with; without one, a policy that requires one is the
            state ``baseline_missing``.
        waivers: violations that a person lets through.
        today: the day waivers are compared with; default: today (UTC).
    """
    day = today or clock.today()
    candidate = None if bundle is None else gather(bundle)
    presets = () if bundle is None else gather_presets(bundle)
    return decide(candidate, policy, None if baseline is None else gather(baseline), waivers, day, presets)


def judged_again(bundle: Bundle, verdict: Verdict) -> Verdict:
    """The verdict that the bundle's measurements get today by the policy, baseline, waivers and day of ``verdict``.

    A verdict that was written by hand, or whose measurements or policy changed since, differs from it.

    Raises:
        ValueError, UsageError: what the verdict holds of them cannot be read.
    """
    policy = parse_policy(verdict.policy_text.encode(), "the verdict's policy")
    waivers = [Waiver.from_json(waiver) for waiver in verdict.waivers]
    baseline = None if verdict.baseline is None else from_essence(verdict.baseline)
    return decide(
        gather(bundle), policy, baseline, waivers, date.fromisoformat(verdict.judged_on), gather_presets(bundle)
    )


def decide(
    candidate: Evidence | None,
    policy: Policy,
    baseline: Evidence | None,
    waivers: Sequence[Waiver],
    today: date,
    presets: Sequence[PresetEvidence] = (),
) -> Verdict:
    """The pure decision; see ``judge``."""
    if candidate is None:
        nothing = [Check("candidate", "fail", "There is no candidate to judge.")]
        return _verdict(
            "candidate_missing", nothing, candidate=None, policy=policy, baseline=None, used=(), today=today
        )
    checks = _integrity(candidate, policy)
    state: State = "judged"
    if candidate.quality is None:
        state = "not_evaluated"
        checks.append(Check("quality.present", "fail", "There are no measurements: evaluate the bundle first."))
    else:
        comparing, more = _baseline(candidate, baseline, policy)
        if policy.compares and policy.baseline_required and baseline is None:
            state = "baseline_missing"
        checks += more + _dimensions(candidate, comparing, policy)
        if policy.classes is not None and comparing is not None:
            checks.append(check_classes(policy.classes, candidate, comparing))
        if policy.score is not None:
            checks += check_score(policy.score, candidate.quality)
        checks += check_lossless_quality("disentangled", policy.disentangled, candidate.quality)
        checks += check_lossless_quality("served", policy.served, candidate.quality)
    checks += check_claims(policy, candidate.equivalence or {})
    rulings = {preset.name: rule_on(preset, candidate, policy) for preset in presets}
    checks += preset_outcomes(rulings, policy.presets)
    checks, used = _waive(checks, waivers, candidate.artefact_sha256, today)
    return _verdict(
        state, checks, candidate=candidate, policy=policy, baseline=baseline, used=used, today=today, rulings=rulings
    )


def _integrity(candidate: Evidence, policy: Policy) -> list[Check]:
    checks = [Check(f"files.{problem.split()[0]}", "fail", f"{problem}.") for problem in candidate.problems]
    quality = candidate.quality
    if quality is None:
        return checks
    version = quality.get("schema_version")
    known = type(version) is int and version == QUALITY_SCHEMA_VERSION
    checks.append(
        present(
            "quality.schema",
            known,
            "quality.json is of the known version.",
            f"quality.json has schema_version {quoted(version)}, and this version reads {QUALITY_SCHEMA_VERSION}: "
            "evaluate the bundle again.",
        )
    )
    measured = mapping(quality.get("subject")).get("artefact_sha256")
    checks.append(
        present(
            "quality.artefact",
            isinstance(measured, str) and measured != "" and measured == candidate.artefact_sha256,
            "The measurements are of exactly these bytes.",
            (
                f"The measurements are of artefact {measured[:12] if isinstance(measured, str) else quoted(measured)}, "
                f"this bundle is {candidate.artefact_sha256[:12]}: evaluate it again."
            ),
        )
    )
    images = candidate.suite.get("images")
    enough = type(images) is int and images >= policy.min_images
    words = f"The suite has {quoted(images)} images; the policy asks for {policy.min_images} or more."
    checks.append(present("suite.images", enough, words, words))
    checks += _same_settings(candidate, policy)
    if policy.suite_sha256 is not None:
        right = candidate.suite.get("sha256") == policy.suite_sha256
        checks.append(
            present(
                "suite.identity",
                right,
                "The policy's own suite was used.",
                "Another suite was used than the policy names.",
            )
        )
    return checks


def _same_settings(candidate: Evidence, policy: Policy) -> list[Check]:
    """Was the choice of images the policy's? Who may choose budget and seed can try until a lucky one passes."""
    settings = mapping(mapping(candidate.quality).get("settings"))
    checks = []
    for key, asked in (("budget", policy.budget), ("seed", policy.seed)):
        used: object = settings.get(key, "not recorded")
        good = used == asked and type(used) is type(asked)
        said = "all images" if used is None else used if isinstance(used, str) else quoted(used)
        wanted = "all images" if asked is None else str(asked)
        option = f"with --{key} {asked}" if asked is not None else f"without --{key}"
        bad = (
            f"Measured with {key} {said}; the policy's [suite] asks for {wanted}: evaluate {option}, "
            f"or set {key} in the policy."
        )
        checks.append(present(f"suite.{key}", good, f"Measured with the policy's {key}, {wanted}.", bad))
    return [*checks, _plainly_measured(settings)]


def _plainly_measured(settings: Mapping[str, Any]) -> Check:
    """Values as the published code measures, or of mixed precision, are of something else than what is served."""
    precisions = settings.get("precisions", {})
    full = isinstance(precisions, dict) and all(value == FLOAT32 for value in precisions.values())
    odd = "--published" if settings.get("published") is not None else "--precision"
    return present(
        "suite.settings",
        full and settings.get("published") is None,
        "Measured without --published, in float32.",
        f"Measured with {odd}, which gives values other than the served model's: evaluate without it.",
    )


def _baseline(candidate: Evidence, baseline: Evidence | None, policy: Policy) -> tuple[Evidence | None, list[Check]]:
    """The baseline if it can be compared with, and the checks on it."""
    if not policy.compares:
        return None, []
    name = "baseline.present"
    if baseline is None:
        if policy.baseline_required:
            return None, [Check(name, "fail", "The policy compares with a baseline and none was given.")]
        reason = "No baseline was given: the largest allowed drops were not checked."
        return None, [Check(name, "warn", reason, severity="warn")]
    if baseline.quality is None:
        return None, [Check(name, "fail", "The baseline has no usable quality.json.")]
    checks = [Check(name, "pass", f"Compared with artefact {baseline.artefact_sha256[:12]}.")]
    version = baseline.quality.get("schema_version")
    known = type(version) is int and version == QUALITY_SCHEMA_VERSION
    checks.append(
        present(
            "baseline.schema",
            known,
            "Its quality.json is of the known version.",
            f"It has schema_version {quoted(version)}.",
        )
    )
    measured = mapping(baseline.quality.get("subject")).get("artefact_sha256")
    checks.append(
        present(
            "baseline.artefact",
            isinstance(measured, str) and measured != "" and measured == baseline.artefact_sha256,
            "The baseline's measurements are of its own bytes.",
            "The baseline's measurements are of other bytes than the baseline.",
        )
    )
    checks.append(
        present(
            "baseline.suite",
            same_suite(candidate, baseline),
            "Both were measured with the same suite.",
            "Candidate and baseline were measured with different suites, so a difference means nothing.",
        )
    )
    return baseline, checks


def _dimensions(candidate: Evidence, baseline: Evidence | None, policy: Policy) -> list[Check]:
    checks: list[Check] = []
    for rule in policy.dimensions:
        measured = candidate.measurement(rule.dimension, rule.factor)
        checks += check_limit(rule, measured)
        checks += check_images(rule, candidate, policy)
        if not rule.compares or baseline is None or measured is None:
            continue
        before = baseline.measurement(rule.dimension, rule.factor)
        alike = check_alike(rule, candidate, baseline) if before is not None else None
        checks += [alike] if alike is not None else []
        if alike is None or alike.outcome == "pass":
            checks += check_drop(rule, measured, before)
    return checks


def _waive(
    checks: list[Check], waivers: Sequence[Waiver], artefact: str, today: date
) -> tuple[list[Check], tuple[Waiver, ...]]:
    """Let waived violations through.

    Only a measured value beyond its threshold can be waived, never a missing or broken one.
    """
    valid: dict[str, Waiver] = {}
    notes: list[Check] = []
    for waiver in waivers:
        name = f"waiver.{waiver.dimension}"
        if waiver.dimension not in WAIVABLE:
            notes.append(Check(name, "fail", f"{waiver.dimension} cannot be waived.", waiver.dimension))
        elif waiver.expired(today):
            reason = f"The waiver of {waiver.owner} ended on {waiver.expires.isoformat()}: renew or remove it."
            notes.append(Check(name, "fail", reason, waiver.dimension))
        elif waiver.artefact_sha256 != artefact:
            reason = (
                f"The waiver of {waiver.owner} is for artefact {waiver.artefact_sha256[:12]} and does not count here."
            )
            notes.append(Check(name, "warn", reason, waiver.dimension, severity="warn"))
        else:
            valid[waiver.dimension] = waiver
    decided: list[Check] = []
    used: list[Waiver] = []
    for check in checks:
        waiver_of = valid.get(check.dimension or "")
        if (
            check.outcome == "fail"
            and waiver_of is not None
            and check.observed is not None
            and check.decided_on != "presence"
        ):
            reason = (
                f"{check.reason} Waived until {waiver_of.expires.isoformat()} by {waiver_of.owner}: {waiver_of.reason}"
            )
            decided.append(replace(check, outcome="waived", reason=reason))
            if waiver_of not in used:
                used.append(waiver_of)
        else:
            decided.append(check)
    return decided + notes, tuple(used)


def _verdict(
    state: State,
    checks: Sequence[Check],
    *,
    candidate: Evidence | None,
    policy: Policy,
    baseline: Evidence | None,
    used: Sequence[Waiver],
    today: date,
    rulings: Mapping[str, PresetRuling] = MappingProxyType({}),
) -> Verdict:
    return Verdict(
        state=state,
        checks=tuple(checks),
        policy_name=policy.name,
        policy_sha256=policy.sha256,
        policy_text=policy.text,
        model="" if candidate is None else candidate.model,
        artefact_sha256="" if candidate is None else candidate.artefact_sha256,
        quality_sha256="" if candidate is None else candidate.quality_sha256,
        equivalence_sha256="" if candidate is None else candidate.equivalence_sha256,
        baseline=None if baseline is None else essence(baseline, classes=policy.classes is not None),
        waivers=tuple(waiver.to_json() for waiver in used),
        judged_on=today.isoformat(),
        valid_until=min(waiver.expires for waiver in used).isoformat() if used else None,
        presets=dict(rulings),
    )
