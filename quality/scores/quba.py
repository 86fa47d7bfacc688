"""QUBA, one number from up to nine dimensions: the weighted mean of their signed z-scores. Loads no torch.

QUBA = sum_d s_d w_d (x_d - mu_d) / sigma_d / sum_d |w_d|, s = -1 where lower is better. (arXiv 2503.17110, section 4.)
Dimensions that were not measured are left out, never imputed: the score is then partial, normalised
    over what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elude.handlers.errors import UsageError
from elude.quality.dimensions import DIMENSIONS, HIGHER_IS_BETTER
from elude.quality.scores.pool import Pool, published_pool

QUBA_2025 = "quba-2025"
_THIRD = 1 / 3
PUBLISHED_WEIGHTS: Mapping[str, float] = {
    "accuracy": 1.0,
    "adversarial_robustness": _THIRD,
    "corruption_robustness": _THIRD,
    "ood_robustness": _THIRD,
    "calibration_error": 1.0,
    "class_balance": 1.0,
    "object_focus": 0.5,
    "shape_bias": 0.5,
    "params_m": 1.0,
}
# ours, not published: what some uses care about most
PROFILES: Mapping[str, Mapping[str, float]] = {
    "quba": PUBLISHED_WEIGHTS,
    "safety": {
        **PUBLISHED_WEIGHTS,
        "adversarial_robustness": 1.0,
        "corruption_robustness": 1.0,
        "ood_robustness": 1.0,
        "params_m": 0.0,
    },
    "edge": {**PUBLISHED_WEIGHTS, "params_m": 3.0},
    "fairness": {**PUBLISHED_WEIGHTS, "class_balance": 3.0, "object_focus": 1.0},
}


@dataclass(frozen=True)
class Contribution:
    """Of one dimension: z, signed so that higher is better; its weight; z * weight / sum of weights, which add up to
    the total.
    """

    z: float
    weight: float
    contribution: float


@dataclass(frozen=True)
class QubaScore:
    """The score.

    Attributes:
        total: 0 is the pool's (trimmed) mean model; higher is better.
        partial: whether a weighted dimension was not measured.
        missing: those dimensions.
        reference: the pool that means and deviations come from.
        per_dimension: the terms of the sum.
    """

    total: float
    partial: bool
    missing: tuple[str, ...]
    reference: str
    per_dimension: Mapping[str, Contribution]

    def to_json(self) -> dict[str, Any]:
        """The ``score`` of ``quality.json``."""
        return {
            "total": self.total,
            "partial": self.partial,
            "missing": list(self.missing),
            "reference": self.reference,
            "per_dimension": {
                d: {"z": c.z, "weight": c.weight, "contribution": c.contribution} for d, c in self.per_dimension.items()
            },
        }


def quba_score(
    values: Mapping[str, float], weights: Mapping[str, float] | str | None = None, reference: str | Pool = QUBA_2025
) -> QubaScore:
    """Score one model.

    Args:
        values: dimension to value, keys as in ``elude.quality.dimensions.DIMENSIONS``; those not measured are absent.
        weights: dimension to weight >= 0, a profile's name, or None for the published weights.
            Dimensions not named weigh 0.
        reference: ``quba-2025``, the 326 published models, meaningful under the ImageNet-1k
            protocol only; or an own :class:`Pool`.

    Raises:
        UsageError: for an unknown dimension, profile or reference, a value that is not finite, a
            negative weight, nothing that is both measured and weighted, or a pool in which a
            dimension does not vary.
    """
    weight_of = _weights(weights)
    _check_keys(values, "value")
    for name, value in values.items():
        if not math.isfinite(value):
            raise UsageError(f"{name} is {value}.", "Leave a dimension out that was not measured.")
    pool = _pool(reference)
    wanted = [d for d in DIMENSIONS if weight_of.get(d, 0.0) > 0]
    used = [d for d in wanted if d in values and d in pool.constants]
    missing = tuple(d for d in wanted if d not in used)
    if not used:
        raise UsageError(
            "No dimension has a value, a weight and a reference.", f"Give some of {', '.join(wanted) or 'the weights'}."
        )
    total_weight = sum(weight_of[d] for d in used)
    terms = {}
    for name in used:
        mean, std = pool.constants[name]
        if std <= 0:
            raise UsageError(f"{name} does not vary in the pool {pool.name}.", "Give it weight 0 or a larger pool.")
        z = (1 if HIGHER_IS_BETTER[name] else -1) * (values[name] - mean) / std
        terms[name] = Contribution(z, weight_of[name], weight_of[name] * z / total_weight)
    return QubaScore(sum(t.contribution for t in terms.values()), bool(missing), missing, pool.name, terms)


@dataclass(frozen=True)
class Standing:
    """Where a score stands in a pool: rank 1 is best; ``nearest`` are the models with the closest score, best first."""

    rank: int
    of: int
    nearest: tuple[tuple[str, float], ...]


def standing(
    score: QubaScore, pool: Pool | None = None, weights: Mapping[str, float] | str | None = None, nearest: int = 3
) -> Standing:
    """Rank of ``score`` among the models of ``pool`` (default: the published one), scored on the same dimensions
    with the same weights.
    """
    pool = published_pool() if pool is None else pool
    weight_of = {d: w for d, w in _weights(weights).items() if d in score.per_dimension}
    scores = ranking(pool, weight_of)
    rank = 1 + sum(other > score.total for _, other in scores)
    closest = sorted(scores, key=lambda item: abs(item[1] - score.total))[:nearest]
    return Standing(rank, len(scores), tuple(sorted(closest, key=lambda item: -item[1])))


def ranking(pool: Pool, weights: Mapping[str, float] | str | None = None) -> list[tuple[str, float]]:
    """All models of a pool with their score, best first; models that lack a weighted dimension are left out."""
    scores = [(name, quba_score(values, weights, pool)) for name, values in pool.models.items()]
    return sorted(((name, score.total) for name, score in scores if not score.partial), key=lambda item: -item[1])


def _pool(reference: str | Pool) -> Pool:
    if isinstance(reference, Pool):
        return reference
    if reference == QUBA_2025:
        return published_pool()
    raise UsageError(f"There is no reference {reference!r}.", f"Use {QUBA_2025!r} or a Pool of your own models.")


def _weights(weights: Mapping[str, float] | str | None) -> Mapping[str, float]:
    if isinstance(weights, str):
        if weights not in PROFILES:
            raise UsageError(f"There is no profile {weights!r}.", f"Use one of {', '.join(PROFILES)}, or give weights.")
        return PROFILES[weights]
    if weights is None:
        return PUBLISHED_WEIGHTS
    _check_keys(weights, "weight")
    wrong = [f"{name} = {weight}" for name, weight in weights.items() if not (math.isfinite(weight) and weight >= 0)]
    if wrong:
        raise UsageError(
            f"Weights are finite and not negative, unlike {wrong[0]}.",
            "Which direction is better is known; give the importance.",
        )
    return weights


def _check_keys(mapping: Mapping[str, float], what: str) -> None:
    unknown = [name for name in mapping if name not in HIGHER_IS_BETTER]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} has a {what} but is not a dimension.", f"The dimensions are {', '.join(DIMENSIONS)}."
        )
