"""A first policy from a baseline: every measured dimension with room for sampling noise, and a comment that says
where it comes from.
"""

from __future__ import annotations

import json
import math

from scipy.special import bdtrc

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import DIMENSIONS, GATED_FACTORS, HIGHER_IS_BETTER, RANGES
from elude.quality.dimensions.measured_on import SAMPLED_NOWHERE, images_in
from elude.quality.gate.class_checks import right_per_class
from elude.quality.gate.evidence import QUALITY_SCHEMA_VERSION, Evidence, Measurement, gather, mapping
from elude.quality.statistics.class_drop import ClassDrop

# half widths of the interval between the baseline's value and what is still allowed: an equal model
# stays inside
_ROOM = 1.5
# chance that an equal model, wrong on images of its own, is stopped by the rule on classes
CHANCE_STOPPED = 0.05


def policy_init(baseline: Bundle, *, name: str = "release") -> str:
    """The text of a commented policy file that the baseline itself passes.

    Raises:
        EvaluationError: the bundle was not measured, or a measurement cannot be used.
    """
    evidence = gather(baseline)
    if evidence.quality is None or not evidence.dimensions:
        raise EvaluationError(f"{baseline.root} was not measured.", "Run 'elude evaluate' on it.")
    if evidence.quality.get("schema_version") != QUALITY_SCHEMA_VERSION:
        raise EvaluationError(
            f"{baseline.root} was measured with an earlier version, which did not record what each dimension was "
            "measured on.",
            "Run 'elude evaluate' on it again.",
        )
    parts = [
        (
            f"# What a release has to prove, made from the measurements of {evidence.model} (artefact "
            f"{evidence.artefact_sha256[:12]})."
        ),
        (
            "# Read every number before you rely on it: they say what this model does, not what your use needs. "
            "See docs/gate.md."
        ),
        "schema_version = 1",
        f"name = {json.dumps(name)}",
        "",
        "# Rules with max_drop compare with a baseline; required = true: a release without one is stopped.",
        "[baseline]",
        "required = true",
        "",
        *_suite(evidence),
    ]
    for dimension in DIMENSIONS:
        parts += ["", *_dimension(evidence, dimension)]
    parts += ["", *_classes(evidence)]
    parts += [
        "",
        "# Steering presets are judged by the rules above; adversarial robustness is not measured for them.",
        "[presets]",
        'severity = "warn"',
        'exempt = ["adversarial_robustness"]',
        "",
        "# The rewrite: largest absolute difference of each claim.",
        "[lossless.claims]",
        "sums = 1e-3",
        "rewrite = 0.0    # bit for bit",
        "runtime = 1e-3",
        "",
        "# Quality of the rewritten and of the served model compared with the original's.",
        "[lossless.disentangled]",
        "default = 1e-6",
        "",
        "[lossless.served]",
        "default = 0.01",
    ]
    return "\n".join(parts) + "\n"


def _suite(evidence: Evidence) -> list[str]:
    """The suite, and the choice of images that a release must be measured with, too."""
    settings = mapping(mapping(evidence.quality).get("settings"))
    budget, seed, sha256 = settings.get("budget"), settings.get("seed"), evidence.suite.get("sha256")
    lines = [
        "# Other images, or fewer, and the numbers below mean something else: releases are measured with this suite,",
        "# budget and seed. Remove sha256 to allow another suite.",
        "[suite]",
    ]
    lines += [f'sha256 = "{sha256}"'] if isinstance(sha256, str) else []
    lines += [f"budget = {budget}"] if type(budget) is int else []
    return [*lines, f"seed = {seed if type(seed) is int else 0}"]


def _dimension(evidence: Evidence, dimension: str) -> list[str]:
    measured = evidence.measurement(dimension)
    if measured is None:
        return [f"# [dimensions.{dimension}]  was not measured."]
    images = images_in(evidence.measured_on(dimension))
    if measured.problem or (images is None and dimension not in SAMPLED_NOWHERE):
        problem = measured.problem or "it is not recorded which images it was measured on"
        raise EvaluationError(f"{dimension} of {evidence.model} cannot be used: {problem}.", "Evaluate it again.")
    lines = _rule(f"dimensions.{dimension}", dimension, measured, images)
    for factor in GATED_FACTORS.get(dimension, ()) if dimension == "adversarial_robustness" else ():
        of_factor = evidence.measurement(dimension, factor)
        if of_factor is not None and not of_factor.problem:
            lines += ["", *_rule(f"dimensions.{dimension}.factors.{factor}", dimension, of_factor, images)]
    return lines


def _rule(table: str, dimension: str, measured: Measurement, images: int | None) -> list[str]:
    """The rule of one dimension or factor, without what could not fail."""
    higher = HIGHER_IS_BETTER[dimension]
    key = "min" if higher else "max"
    if measured.interval is None:
        allowed = _away(measured.value * (0.9 if higher else 1.1), higher)
        value = f"{key} = {allowed:g}  # within a tenth; there is no sampling in it"
        lines = [f"[{table}]  # {measured.value:.4g}", value]
        return lines if _can_fail(dimension, allowed) else [f"# {lines[0]}: no limit could fail."]
    low, high = measured.interval
    one_image = 0.0 if images is None else 1 / images
    room = _ROOM * max(measured.value - low, high - measured.value, one_image)
    sign = -1.0 if higher else 1.0
    pessimistic = min(low, measured.value) if higher else max(high, measured.value)
    head = f"[{table}]  # {measured.value:.4g}, 95 % interval {low:.4g} to {high:.4g}"
    limit, drop = _away(pessimistic + sign * room, higher), _away(room, False)
    lines = []
    if _can_fail(dimension, limit):
        lines.append(f"{key} = {limit:g}  # one and a half half-widths beyond the pessimistic end")
    if _can_fail(dimension, measured.value + sign * drop):
        lines.append(f"max_drop = {drop:g}  # an equal model on the same images stays within one half-width")
    if not lines:
        return [f"# {head}: too uncertain for a rule that can fail. Measure more images."]
    least = [] if images is None else [f"min_images = {images}"]
    return [head, *lines, 'decide_on = "bound"', *least]


def _classes(evidence: Evidence) -> list[str]:
    """The rule on each class, with room for an equal model whose mistakes are independent of the baseline's."""
    answers = right_per_class(evidence)
    rows = [(len(row), row.count("1")) for row in answers.values()]
    for fewest in sorted({images for images, _ in rows}):
        judged = [row for row in rows if row[0] >= fewest]
        allowed = max(_away(room_of_class(*row, CHANCE_STOPPED / len(judged)), False) for row in judged)
        if any(ClassDrop("", images, right, 0).interval[1] > allowed for images, right in judged):
            return [
                f"[classes]  # {len(judged)} of {len(rows)} classes",
                f"max_drop = {allowed:g}  # an equal model that errs on other images of a class stays within it",
                f"min_images = {fewest}",
                'decide_on = "bound"',
            ]
    return ["# [classes]  no limit could fail: more images per class are needed, and an evaluation that records them."]


def room_of_class(images: int, right: int, chance: float) -> float:
    """The upper bound of the drop of a class that an equal model exceeds only with ``chance``.

    The model and the baseline, both of accuracy a, err independently: an image is newly wrong with probability
    a (1 - a).
    """
    rate = (right + 1) / (images + 2)  # Laplace's, as few images may all be right by luck
    newly_wrong = next(k for k in range(images + 1) if bdtrc(k, images, rate * (1 - rate)) <= chance)
    return ClassDrop("", images, newly_wrong, 0).interval[1]


def _can_fail(dimension: str, threshold: float) -> bool:
    low, high = RANGES[dimension]
    return threshold > low if HIGHER_IS_BETTER[dimension] else threshold < high


def _away(value: float, down: bool) -> float:
    """Three decimals, rounded so that the rule gets no stricter."""
    scaled = value * 1000
    return (math.floor(scaled) if down else math.ceil(scaled)) / 1000
