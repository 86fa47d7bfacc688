"""Did any single class get worse? A fault of two classes among many hardly moves the accuracy of all."""

from __future__ import annotations

import math
from collections.abc import Mapping

from elude.quality.dimensions.measured_on import images_in, unlike
from elude.quality.gate.checks import deciding_digits
from elude.quality.gate.evidence import Evidence, mapping
from elude.quality.gate.verdict import Check, Outcome
from elude.quality.policies.policy import ClassRule
from elude.quality.statistics.class_drop import ClassDrop, class_drops, images_needed

NAME, SUBJECT = "classes.drop", "classes"


def check_classes(rule: ClassRule, candidate: Evidence, baseline: Evidence) -> Check:
    """Has every class kept its accuracy, but for what the policy allows? The worst class decides."""
    problem = _incomparable(candidate, baseline)
    if problem:
        return Check(NAME, "fail", f"The classes cannot be compared with the baseline's: {problem}.", SUBJECT)
    before = {name: row for name, row in right_per_class(baseline).items() if len(row) >= rule.min_images}
    largest = [ClassDrop(name, len(row), row.count("1"), 0) for name, row in before.items()]
    if not any(_decisive(rule, drop) > rule.max_drop for drop in largest):
        reason = (
            f"In the baseline, none of {len(before)} classes with {rule.min_images} images or more can drop by more "
            f"than {rule.max_drop:g}, so this rule cannot fail. Lower max_drop or min_images."
        )
        return Check(NAME, rule.severity, reason, SUBJECT, threshold=rule.max_drop)
    drops = class_drops(before, right_per_class(candidate))
    worst = max(drops, key=lambda drop: (_decisive(rule, drop), drop.drop))
    beyond = sum(_decisive(rule, drop) > rule.max_drop for drop in drops)
    outcome: Outcome = rule.severity if beyond else "pass"
    return Check(
        NAME,
        outcome,
        _sentence(rule, worst, beyond, len(drops)) + _left_out(rule, baseline),
        SUBJECT,
        worst.drop,
        worst.interval,
        rule.max_drop,
        rule.decide_on,
        rule.severity,
    )


def right_per_class(evidence: Evidence) -> Mapping[str, str]:
    """Class, sorted by name, to its images in order, ``1`` for a right answer; empty if the measurements do not hold
    that, or hold what contradicts their accuracy.

    JSON keeps no order of keys: of classes that dropped equally, the first by name is the worst, in any file.
    """
    accuracy = mapping(evidence.dimensions.get("accuracy"))
    answers = mapping(accuracy.get("right_per_class"))
    if not all(isinstance(row, str) and row and set(row) <= {"0", "1"} for row in answers.values()):
        return {}
    images, right = (sum(measure(row) for row in answers.values()) for measure in (len, lambda row: row.count("1")))
    measured = evidence.measurement("accuracy")
    agrees = measured is not None and images > 0 and math.isclose(right / images, measured.value, abs_tol=1e-9)
    return dict(sorted(answers.items())) if agrees and images == images_in(evidence.measured_on("accuracy")) else {}


def _incomparable(candidate: Evidence, baseline: Evidence) -> str:
    if difference := unlike("accuracy", candidate.measured_on("accuracy"), baseline.measured_on("accuracy")):
        return f"{difference}. Evaluate both with the same suite"
    rows = [right_per_class(evidence) for evidence in (candidate, baseline)]
    for row, whose in zip(rows, ("this model's", "the baseline's"), strict=True):
        if not row:
            return f"{whose} measurements do not hold the answers of each class. Evaluate it again"
    if rows[0].keys() != rows[1].keys():
        other = min(rows[0].keys() ^ rows[1].keys())
        return f"only one of them has a class {other!r}. Give both models the same names of outputs"
    different = [name for name in rows[0] if len(rows[0][name]) != len(rows[1][name])]
    return f"they have other numbers of images of {different[0]!r}" if different else ""


def _decisive(rule: ClassRule, drop: ClassDrop) -> float:
    return drop.drop if rule.decide_on == "point" else drop.interval[1]


def _left_out(rule: ClassRule, baseline: Evidence) -> str:
    small = sum(len(row) < rule.min_images for row in right_per_class(baseline).values())
    return f" {small} classes have fewer than {rule.min_images} images and were not judged." if small else ""


def _sentence(rule: ClassRule, worst: ClassDrop, beyond: int, classes: int) -> str:
    observed, limit = deciding_digits(_decisive(rule, worst), rule.max_drop)
    bound = f" (upper bound of {worst.drop:.4g})" if rule.decide_on == "bound" else ""
    of_worst = (
        f"of {worst.images} images of {worst.name!r}, {worst.newly_wrong} are newly wrong and {worst.newly_right} "
        f"newly right, a drop of {observed}{bound}"
    )
    if not beyond:
        return f"No class of {classes} drops by more than the allowed {limit}: the worst is {worst.name!r}; {of_worst}."
    few = ""
    if rule.decide_on == "bound" and worst.newly_wrong == 0:
        few = f" It has too few images to show a smaller one: {images_needed(rule.max_drop)} or more are needed."
    more = f" It is the worst of {beyond} such classes among {classes}." if beyond > 1 else ""
    return f"{of_worst[:1].upper()}{of_worst[1:]}, more than the allowed {limit}.{more}{few}"
