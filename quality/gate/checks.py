"""The single decisions of the gate, each a pure function from evidence and rule to checks.

Whatever cannot be decided fails.

Every comparison is written so that NaN and absence land on the failing side: a check passes only when ``observed`` is
finite and provably on the good side of the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from elude.quality.dimensions import HIGHER_IS_BETTER, RANGES
from elude.quality.dimensions.measured_on import SAMPLED_NOWHERE, images_in, unlike
from elude.quality.gate.evidence import Evidence, Measurement, mapping, number, quoted
from elude.quality.gate.verdict import Check, Outcome
from elude.quality.policies.policy import DimensionRule, Policy, ScoreRule, Tolerances

EQUIVALENCE_SCHEMA_VERSION = 1


def present(name: str, good: bool, reason_good: str, reason_bad: str, dimension: str | None = None) -> Check:
    """A check without a number; a violation always fails."""
    return Check(name, "pass" if good else "fail", reason_good if good else reason_bad, dimension)


def check_limit(rule: DimensionRule, measured: Measurement | None) -> list[Check]:
    """Is the dimension measured, usable, and on the good side of the policy's limit?"""
    usable = _measured(rule, measured)
    if usable is not None:
        return [usable]
    assert measured is not None
    observed = _decisive(rule, measured)
    if observed is None:
        return [_no_interval(rule)]
    if rule.limit is None:
        return []
    return [_compare(rule, measured, observed, rule.limit, suffix="limit", against="the policy's limit {threshold}")]


def check_images(rule: DimensionRule, candidate: Evidence, policy: Policy) -> list[Check]:
    """Does the dimension rest on as many images as the policy asks for, each of its sets?"""
    if rule.dimension in SAMPLED_NOWHERE or rule.dimension not in candidate.dimensions:
        return []
    name = f"{rule.name}.images"
    images = images_in(candidate.measured_on(rule.dimension))
    if images is None:
        reason = "quality.json does not record which images it was measured on: evaluate the model again."
        return [Check(name, "fail", f"{rule.name}: {reason}", rule.dimension)]
    least = policy.min_images if rule.min_images is None else rule.min_images
    words = f"{rule.name} rests on {images} images; the policy asks for {least} or more."
    return [present(name, images >= least, words, words, rule.dimension)]


def check_alike(rule: DimensionRule, candidate: Evidence, baseline: Evidence) -> Check:
    """Were both measured on the same images, corruptions, severities and attacks?"""
    records = candidate.measured_on(rule.dimension), baseline.measured_on(rule.dimension)
    difference = unlike(rule.dimension, *records)
    return present(
        f"{rule.name}.alike",
        not difference,
        f"{rule.name} of both was measured alike.",
        f"{rule.name} cannot be compared with the baseline's: {difference}. Evaluate both with the same suite, "
        "--budget and --seed.",
        rule.dimension,
    )


def check_drop(rule: DimensionRule, measured: Measurement | None, baseline: Measurement | None) -> list[Check]:
    """Is the dimension no worse than the baseline's by more than the policy allows? The baseline counts with its
    point estimate.
    """
    observed = None if measured is None or measured.problem else _decisive(rule, measured)
    if measured is None or observed is None:
        return []  # check_limit has already said why
    name = f"{rule.name}.drop"
    if baseline is None:
        return [Check(name, "fail", f"The baseline has no {rule.name}, so the drop cannot be judged.", rule.dimension)]
    if baseline.problem:
        reason = f"The baseline's {rule.name} cannot be used: {baseline.problem}."
        return [Check(name, "fail", reason, rule.dimension)]
    checks = []
    sign = -1.0 if HIGHER_IS_BETTER[rule.dimension] else 1.0
    for suffix, allowed in (
        ("drop", rule.max_drop),
        ("drop_relative", None if rule.max_drop_relative is None else rule.max_drop_relative * abs(baseline.value)),
    ):
        if allowed is None:
            continue
        threshold = baseline.value + sign * allowed
        low, high = RANGES[rule.dimension]
        if threshold <= low if sign < 0 else threshold >= high:
            reason = (
                f"{rule.name}: a drop of {allowed:.4g} from the baseline's {baseline.value:.4g} leaves the measure's "
                f"range, so this rule cannot fail. Lower {'max_drop' if suffix == 'drop' else 'max_drop_relative'}, "
                "or gate a factor."
            )
            checks.append(Check(f"{rule.name}.{suffix}", rule.severity, reason, rule.dimension, threshold=threshold))
            continue
        against = f"the baseline's {baseline.value:.4g} with {allowed:.4g} allowed, {{threshold}}"
        checks.append(_compare(rule, measured, observed, threshold, suffix=suffix, against=against))
    return checks


def check_score(rule: ScoreRule, quality: Mapping[str, Any]) -> list[Check]:
    """Does the QUBA score reach the policy's minimum? With the policy's own weights it is recomputed from the parts."""
    score = mapping(quality.get("score"))
    if not score:
        return [
            Check(
                "score.limit",
                "fail",
                "The policy asks for a score and the report has none.",
                "score",
                threshold=rule.limit,
            )
        ]
    if score.get("partial") is not False and not rule.allow_partial:
        reason = "The score is partial: not every dimension was measured, and the policy does not allow that."
        return [Check("score.limit", "fail", reason, "score", threshold=rule.limit)]
    total = number(score.get("total"))
    own = _recomputed(mapping(score.get("per_dimension")), None)
    if total is None or own is None or not math.isclose(total, own, rel_tol=1e-6, abs_tol=1e-9):
        reason = f"The score {quoted(score.get('total'))} does not follow from its parts ({quoted(own)})."
        return [Check("score.limit", "fail", reason, "score", threshold=rule.limit)]
    observed = total if rule.weights is None else _recomputed(mapping(score.get("per_dimension")), rule.weights)
    if observed is None:
        reason = "The score cannot be recomputed with the policy's weights: a weighted dimension is missing."
        return [Check("score.limit", "fail", reason, "score", threshold=rule.limit)]
    good = observed >= rule.limit
    outcome: Outcome = "pass" if good else rule.severity
    words = "reaches" if good else "is below"
    shown, limit = deciding_digits(observed, rule.limit)
    reason = f"The score {shown} {words} the policy's minimum {limit}."
    return [Check("score.limit", outcome, reason, "score", observed, None, rule.limit, "point", rule.severity)]


def check_claims(policy: Policy, equivalence: Mapping[str, Any]) -> list[Check]:
    """Does each of the three claims of losslessness hold within the policy's tolerance?"""
    checks = []
    for claim, tolerance in policy.claims.items():
        observed = claim_error(equivalence, claim)
        name = f"lossless.{claim}"
        if not _claim_passed(equivalence, claim):
            reason = (
                f"equivalence.json does not say that every check of the claim {claim!r} passed "
                "when the bundle was made."
            )
            checks.append(Check(name, "fail", reason, None, observed, None, tolerance, "point"))
            continue
        if observed is None:
            checks.append(
                Check(
                    name, "fail", f"equivalence.json has no finite number for the claim {claim!r}.", threshold=tolerance
                )
            )
            continue
        good = observed <= tolerance
        relation = "within" if good else "above"
        shown, limit = deciding_digits(observed, tolerance)
        reason = f"Largest absolute difference {shown}, {relation} the tolerance {limit}."
        checks.append(Check(name, "pass" if good else "fail", reason, None, observed, None, tolerance, "point"))
    version = equivalence.get("schema_version")
    known = type(version) is int and version == EQUIVALENCE_SCHEMA_VERSION and equivalence.get("passed") is True
    words = f"equivalence.json has schema_version {quoted(version)} and passed = {quoted(equivalence.get('passed'))}."
    return [*checks, present("lossless.verified", known, "The export's own verification passed.", words)]


def check_lossless_quality(form: str, tolerances: Tolerances, quality: Mapping[str, Any]) -> list[Check]:
    """Has the rewritten ``form`` ("disentangled" or "served") the original's value in every dimension?"""
    lossless = mapping(quality.get("lossless"))
    original, other = mapping(lossless.get("original")), mapping(lossless.get(form))
    dimensions = [
        d
        for d in HIGHER_IS_BETTER
        if (d in original or d in other or d in tolerances.named) and d not in tolerances.exempt
    ]
    if not dimensions:
        reason = (
            f"quality.json does not compare the {form} model with the original: evaluate the bundle beside it (of a "
            "bundle that was made from an ONNX file, elude evaluate --model FILE.onnx)."
        )
        return [Check(f"lossless.{form}", "fail", reason)]
    checks = []
    for dimension in dimensions:
        tolerance = tolerances.named.get(dimension, tolerances.default)
        before, after = number(original.get(dimension)), number(other.get(dimension))
        name = f"lossless.{form}.{dimension}"
        if before is None or after is None:
            missing = "original" if before is None else form
            reason = (
                f"The {missing} model has no finite {dimension} in quality.json, so the rewrite cannot be compared."
            )
            checks.append(Check(name, "fail", reason, threshold=tolerance))
            continue
        difference = abs(after - before)
        good = difference <= tolerance
        relation = "within" if good else "above"
        shown, shown_before = deciding_digits(after, before)
        change, limit = deciding_digits(difference, tolerance)
        reason = (
            f"{shown} compared with the original's {shown_before}: the difference {change} is {relation} the tolerance "
            f"{limit}."
        )
        checks.append(Check(name, "pass" if good else "fail", reason, None, difference, None, tolerance, "point"))
    return checks


def claim_error(equivalence: Mapping[str, Any], claim: str) -> float | None:
    """Largest absolute difference that equivalence.json states for ``claim``;

    None if it states no finite one of at least 0.
    """
    error = number(mapping(equivalence.get("summary")).get(claim))
    return None if error is None or error < 0 else error


def same_suite(candidate: Evidence, baseline: Evidence) -> bool:
    """Whether both were measured on the same images: otherwise a difference means nothing."""
    sha256 = candidate.suite.get("sha256")
    return isinstance(sha256, str) and bool(sha256) and sha256 == baseline.suite.get("sha256")


def _claim_passed(equivalence: Mapping[str, Any], claim: str) -> bool:
    """Whether the claim lists at least one comparison, and every one of them passed; the summary leaves some kinds
    of input out.
    """
    details = mapping(mapping(equivalence.get("claims")).get(claim))
    items = details.get("layers" if claim == "sums" else "outputs")
    return isinstance(items, list) and bool(items) and all(mapping(item).get("passed") is True for item in items)


def _measured(rule: DimensionRule, measured: Measurement | None) -> Check | None:
    name = f"{rule.name}.measured"
    if measured is None:
        if rule.required:
            reason = f"{rule.name} was not measured and the policy requires it."
            return Check(name, "fail", reason, rule.dimension)
        reason = f"{rule.name} was not measured; the policy does not require it."
        return Check(name, "warn", reason, rule.dimension, severity="warn")
    if measured.problem:  # a broken number is worse than none: it fails whatever the severity
        return Check(name, "fail", f"{rule.name} cannot be used: {measured.problem}.", rule.dimension, measured.value)
    return None


def _decisive(rule: DimensionRule, measured: Measurement) -> float | None:
    """The number that decides; None when the bound should decide and there is no interval.

    An interval that leaves out its own estimate (bootstrap intervals of biased estimators may) is
    never kinder than the estimate.
    """
    if rule.decide_on == "point":
        return measured.value
    if measured.interval is None:
        return None
    low, high = measured.interval
    return min(low, measured.value) if HIGHER_IS_BETTER[rule.dimension] else max(high, measured.value)


def _no_interval(rule: DimensionRule) -> Check:
    reason = f"{rule.name} is decided on its confidence bound, and it was measured without an interval."
    return Check(f"{rule.name}.limit", "fail", reason, rule.dimension, None, None, rule.limit, "bound", rule.severity)


def _compare(
    rule: DimensionRule, measured: Measurement, observed: float, threshold: float, *, suffix: str, against: str
) -> Check:
    higher = HIGHER_IS_BETTER[rule.dimension]
    good = observed >= threshold if higher else observed <= threshold
    outcome: Outcome = "pass" if good else rule.severity
    shown, limit = deciding_digits(observed, threshold)
    what = f"{rule.name} {shown}"
    if rule.decide_on == "bound":
        what += f" ({'lower' if higher else 'upper'} bound of {measured.value:.4g})"
    words = "meets" if good else ("is below" if higher else "is above")
    return Check(
        f"{rule.name}.{suffix}",
        outcome,
        f"{what} {words} {against.format(threshold=limit)}.",
        rule.dimension,
        measured.value,
        measured.interval,
        threshold,
        rule.decide_on,
        rule.severity,
    )


def deciding_digits(first: float, second: float) -> tuple[str, str]:
    """Both numbers with four digits, or with as many more as tell them apart."""
    for digits in range(4, 18):
        texts = f"{first:.{digits}g}", f"{second:.{digits}g}"
        if texts[0] != texts[1] or first == second:
            return texts
    return repr(first), repr(second)


def _recomputed(parts: Mapping[str, Any], weights: Mapping[str, float] | None) -> float | None:
    """Σ w·z / Σ |w| over the parts; None when a part or a weighted dimension is missing. z already points upwards."""
    total = weight_sum = 0.0
    for dimension in sorted(parts if weights is None else weights):  # a sum's last digits depend on the order
        part = mapping(parts.get(dimension))
        z = number(part.get("z"))
        weight = number(part.get("weight")) if weights is None else weights[dimension]
        if weight is None or z is None:
            return None
        total += weight * z
        weight_sum += abs(weight)
    return total / weight_sum if weight_sum > 0 else None
