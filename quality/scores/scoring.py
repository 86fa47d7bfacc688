"""What ``elude score`` prints: a report or plain values, scored with a profile against the published models or own
ones. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elude.handlers.errors import UsageError
from elude.quality.scores.compare import read_report
from elude.quality.scores.pool import Pool
from elude.quality.scores.quba import QUBA_2025, QubaScore, Standing, quba_score, standing


@dataclass(frozen=True)
class Scored:
    """A score, where it stands, and what should be known about it."""

    score: QubaScore
    standing: Standing
    warning: str

    def to_json(self) -> dict[str, Any]:
        place = {
            "rank": self.standing.rank,
            "of": self.standing.of,
            "nearest": [list(item) for item in self.standing.nearest],
        }
        return {**self.score.to_json(), **place, "warning": self.warning or None}


def own_pool(paths: Sequence[str | Path], name: str = "own") -> Pool:
    """A pool of earlier results: ``quality.json`` files or bundles.

    Raises:
        UsageError: fewer than two, one that cannot be read, or one of another suite than the first.
    """
    reports = {str(path): read_report(path) for path in paths}
    suites = {report.suite.get("sha256") for report in reports.values()}
    if len(suites) > 1:
        raise UsageError(
            f"The {len(reports)} results of the pool were measured on {len(suites)} suites.",
            "Use results of one suite.",
        )
    return Pool.of(name, {path: report.values for path, report in reports.items()})


def score_of(
    subject: str | Path | Mapping[str, float],
    *,
    weights: Mapping[str, float] | str | None = None,
    pool: Sequence[str | Path] = (),
    nearest: int = 3,
) -> Scored:
    """Score a ``quality.json``, a bundle or plain values.

    Args:
        subject: path or values.
        weights: dimension to weight, or the name of a profile of ``elude.quality.scores.quba.PROFILES``.
        pool: earlier results to be relative to, instead of the published models.
        nearest: how many models with the closest score to name.

    Raises:
        UsageError: something cannot be read or scored.
    """
    report = None if isinstance(subject, Mapping) else read_report(subject)
    values = subject if isinstance(subject, Mapping) else read_report(subject).values
    reference: Pool | str = own_pool(pool) if pool else QUBA_2025
    score = quba_score(values, weights, reference)
    warning = ""
    if report is not None and not pool and report.suite.get("protocol") != "imagenet-1k":
        warning = (
            "Measured on another protocol than the published models: "
            "only ImageNet-1k's makes this score and rank meaningful."
        )
    return Scored(score, standing(score, reference if isinstance(reference, Pool) else None, weights, nearest), warning)
