"""What ``elude score`` prints: a report or plain values, scored with a profile against the published models or own
ones. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elude.handlers.errors import UsageError
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.measured_on import unlike
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.scores.compare import read_report
from elude.quality.scores.pool import Pool
from elude.quality.scores.quba import QUBA_2025, QubaScore, Standing, quba_score, standing


@dataclass(frozen=True)
class Scored:
    """A score and where it stands."""

    score: QubaScore
    standing: Standing

    def to_json(self) -> dict[str, Any]:
        place = {
            "rank": self.standing.rank,
            "of": self.standing.of,
            "nearest": [list(item) for item in self.standing.nearest],
        }
        return {**self.score.to_json(), **place}


def own_pool(paths: Sequence[str | Path], name: str = "own") -> Pool:
    """A pool of earlier results: ``quality.json`` files or bundles.

    Raises:
        UsageError: fewer than two, one that cannot be read, or one that was measured on other images than the first.
    """
    reports = {str(path): read_report(path) for path in paths}
    check_alike(reports)
    return Pool.of(name, {path: report.values for path, report in reports.items()})


def check_alike(reports: Mapping[str, QualityReport]) -> None:
    """Whether all were measured on the same images in the same way.

    Raises:
        UsageError: one was not, with its path, the dimension and the difference.
    """
    suites = {report.suite.get("sha256") for report in reports.values()}
    if len(suites) > 1:
        raise UsageError(
            f"The {len(reports)} results were measured on {len(suites)} suites.", "Use results of one suite."
        )
    first_path, first = next(iter(reports.items()))
    for path, report in reports.items():
        shared = [name for name in DIMENSIONS if name in report.dimensions and name in first.dimensions]
        for dimension in shared:
            records = (result.dimensions[dimension].measured_on for result in (first, report))
            if path != first_path and (difference := unlike(dimension, *records)):
                raise UsageError(
                    f"{dimension} of {path} cannot be compared with that of {first_path}: {difference}.",
                    "Evaluate all of them with the same suite, --budget and --seed.",
                )


def score_of(
    subject: str | Path | Mapping[str, float],
    *,
    weights: Mapping[str, float] | str | None = None,
    pool: Sequence[str | Path] = (),
    nearest: int = 3,
) -> Scored:
    """Score a ``quality.json``, a bundle or plain values.

    Args:
        subject: path; or values, which the caller states were measured like the reference.
        weights: dimension to weight, or the name of a profile of ``elude.quality.scores.quba.PROFILES``.
        pool: earlier results to be relative to, instead of the published models.
        nearest: how many models with the closest score to name.

    Raises:
        UsageError: something cannot be read or scored; or a report off the ImageNet-1k protocol is scored without a
            pool: the published means and ranks say nothing about it.
    """
    report = None if isinstance(subject, Mapping) else read_report(subject)
    values = subject if isinstance(subject, Mapping) else read_report(subject).values
    if report is not None and not pool and report.score is None:
        raise UsageError(
            f"{subject} has no score among the published models: {report.settings.get('no_score')}.",
            "Compare it with your own: give two or more earlier results of the same suite with --pool.",
        )
    reference: Pool | str = own_pool(pool) if pool else QUBA_2025
    if report is not None and pool:
        check_alike({str(pool[0]): read_report(pool[0]), str(subject): report})
    score = quba_score(values, weights, reference)
    return Scored(score, standing(score, reference if isinstance(reference, Pool) else None, weights, nearest))
