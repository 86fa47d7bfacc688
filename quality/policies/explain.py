"""A policy in words: what will be checked, and what stops a release."""

from __future__ import annotations

from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.policies.policy import ClassRule, DimensionRule, Policy, Tolerances
from elude.quality.statistics.class_drop import images_needed
from elude.quality.statistics.intervals import LEVEL

_CLAIMS = {
    "sums": "The sub-units of each unit sum to the unit",
    "rewrite": "The rewritten torch model returns the original's outputs",
    "runtime": "ONNX Runtime returns what torch returns",
}


def explain(policy: Policy) -> str:
    """The policy as a text of one sentence per line."""
    lines = [
        f"Policy “{policy.name}” ({policy.sha256[:12]}).",
        policy.description if policy.description != "-" else "",
        "",
    ]
    suite = f"At least {policy.min_images} labelled image{'' if policy.min_images == 1 else 's'}" + (
        f", the suite {policy.suite_sha256[:12]}" if policy.suite_sha256 else ""
    )
    chosen = "all of them" if policy.budget is None else f"a choice of {policy.budget}"
    suite += f"; the dimensions that need many passes on {chosen}, with seed {policy.seed}"
    lines += [f"Measured on: {suite}. The measurements must be of exactly the bytes that are released."]
    if not policy.compares:
        lines += ["Nothing is compared with an earlier release."]
    elif policy.baseline_required:
        lines += ["Without a baseline to compare with, nothing is released."]
    else:
        lines += ["Without a baseline, the comparisons below are left out, and the report says so."]
    lines += ["", "Dimensions:"]
    for rule in policy.dimensions:
        lines += [f"- {sentence}" for sentence in _dimension(rule)]
    if policy.classes is not None:
        lines += [f"- {_classes(policy.classes)}"]
    if policy.score is not None:
        score = policy.score
        partial = (
            "a score over some of the dimensions counts"
            if score.allow_partial
            else "all nine dimensions must be measured"
        )
        weights = f", with weights {', '.join(f'{k} {v:g}' for k, v in score.weights.items())}" if score.weights else ""
        lines += [
            f"- The QUBA score must be at least {score.limit:g}{weights}; {partial}. {_violation(score.severity)}"
        ]
    lines += ["", "The rewrite must be lossless:"]
    for claim, tolerance in policy.claims.items():
        lines += [f"- {_CLAIMS[claim]}: {'bit for bit' if tolerance == 0 else f'within {tolerance:g}'}."]
    lines += [
        f"- {sentence}"
        for sentence in (_tolerances("rewritten", policy.disentangled), _tolerances("served", policy.served))
    ]
    exempt = f", but for {', '.join(policy.presets.exempt)}" if policy.presets.exempt else ""
    lines += [
        "",
        (
            f"Steering presets are judged by the same dimensions{exempt}, each compared with the unsteered "
            "model. One that fails is never"
        )
        + (
            " served, and stops the release."
            if policy.presets.severity == "fail"
            else " served; the release continues without it."
        ),
        "",
        (
            "Whatever is missing, broken, or of different bytes fails. A waiver lets a measured value through until "
            "its day, nothing else."
        ),
    ]
    bounds = sum(rule.decide_on == "bound" for rule in policy.dimensions)
    if bounds:
        lines += [
            f"{bounds} dimensions are decided on the pessimistic end of a {LEVEL:.0%} interval. All checks "
            "must pass, so no correction for "
            "their number is needed: a model truly beyond any one limit passes with a chance of at most "
            f"{(1 - LEVEL) / 2:.1%}."
        ]
    return "\n".join(lines) + "\n"


def _dimension(rule: DimensionRule) -> list[str]:
    higher = HIGHER_IS_BETTER[rule.dimension]
    most, worse = ("at least", "below") if higher else ("at most", "above")
    decided = (
        f", decided on the {'lower' if higher else 'upper'} end of its interval" if rule.decide_on == "bound" else ""
    )
    least = "" if rule.min_images is None else f" It must rest on {rule.min_images} images or more."
    what = []
    if rule.limit is not None:
        what.append(f"must be {most} {rule.limit:g}")
    if rule.max_drop is not None:
        what.append(f"may be {rule.max_drop:g} {worse} the baseline's")
    if rule.max_drop_relative is not None:
        what.append(f"may be {rule.max_drop_relative:.3g} of the baseline's value {worse} it")
    missing = "" if rule.required else " It need not be measured."
    return [f"{rule.name} {' and '.join(what)}{decided}. {_violation(rule.severity)}{missing}{least}"]


def _classes(rule: ClassRule) -> str:
    decided = (
        f", decided on the upper end of its interval, which needs {images_needed(rule.max_drop)} images of each class"
        if rule.decide_on == "bound"
        else ""
    )
    small = f" Classes with fewer than {rule.min_images} images are not judged." if rule.min_images > 1 else ""
    return (
        f"The accuracy of no class may be more than {rule.max_drop:g} below the baseline's{decided}. "
        f"{_violation(rule.severity)}{small}"
    )


def _violation(severity: str) -> str:
    return "Else the release is stopped." if severity == "fail" else "Else there is a warning."


def _tolerances(form: str, tolerances: Tolerances) -> str:
    named = "".join(f", {name} by {value:g}" for name, value in tolerances.named.items())
    exempt = f", {', '.join(tolerances.exempt)} by anything" if tolerances.exempt else ""
    return (
        f"Each dimension of the {form} model may differ from the original's by {tolerances.default:g}{named}{exempt}."
    )
