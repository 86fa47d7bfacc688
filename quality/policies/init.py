"""A first policy from a baseline: every measured dimension with room for sampling noise, and a comment that says
where it comes from.
"""

from __future__ import annotations

import json
import math

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import DIMENSIONS, HIGHER_IS_BETTER
from elude.quality.gate.evidence import Measurement, gather

# half widths of the interval between the baseline's value and what is still allowed: an equal model
# stays inside
_ROOM = 1.5


def policy_init(baseline: Bundle, *, name: str = "release") -> str:
    """The text of a commented policy file that the baseline itself passes.

    Raises:
        EvaluationError: the bundle was not measured, or a measurement cannot be used.
    """
    evidence = gather(baseline)
    if evidence.quality is None or not evidence.dimensions:
        raise EvaluationError(f"{baseline.root} was not measured.", "Run 'elude evaluate' on it.")
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
        "# Fewer images, or others, and the numbers below mean something else. Remove sha256 to allow another suite.",
        "[suite]",
        f"min_images = {_images(evidence.suite.get('images'))}",
    ]
    if isinstance(sha256 := evidence.suite.get("sha256"), str):
        parts.append(f'sha256 = "{sha256}"')
    for dimension in DIMENSIONS:
        measured = evidence.measurement(dimension)
        if measured is None:
            parts += ["", f"# [dimensions.{dimension}]  was not measured."]
            continue
        if measured.problem:
            raise EvaluationError(
                f"{dimension} of {baseline.root} cannot be used: {measured.problem}.", "Evaluate it again."
            )
        parts += ["", *_rule(dimension, measured)]
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
        "# Quality of the rewritten and of the served model against the original's.",
        "[lossless.disentangled]",
        "default = 1e-6",
        "",
        "[lossless.served]",
        "default = 0.01",
    ]
    return "\n".join(parts) + "\n"


def _rule(dimension: str, measured: Measurement) -> list[str]:
    higher = HIGHER_IS_BETTER[dimension]
    key, sign = ("min", -1.0) if higher else ("max", 1.0)
    head = [f"[dimensions.{dimension}]  # {measured.value:.4g}"]
    if measured.interval is None:
        allowed = _away(measured.value * (1.1 if not higher else 0.9), higher)
        return [*head, f"{key} = {allowed:g}  # within a tenth; there is no sampling in it"]
    low, high = measured.interval
    pessimistic = min(low, measured.value) if higher else max(high, measured.value)
    room = _ROOM * abs(measured.value - pessimistic)
    drop = _away(max(room, 0.001), False)
    return [
        head[0] + f", 95 % interval {low:.4g} to {high:.4g}",
        (
            f"{key} = {_away(pessimistic + sign * room, higher):g}  # one and a half half-widths beyond the "
            "pessimistic end"
        ),
        f"max_drop = {drop:g}  # an equal model on the same images stays within one half-width",
        'decide_on = "bound"',
    ]


def _away(value: float, down: bool) -> float:
    """Three decimals, rounded so that the rule gets no stricter."""
    scaled = value * 1000
    return (math.floor(scaled) if down else math.ceil(scaled)) / 1000


def _images(images: object) -> int:
    return images if type(images) is int and images > 0 else 1
