"""Measure one subject on one suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from handlers.errors import EvaluationError, UsageError
from quality.dimensions import DIMENSIONS
from quality.dimensions.accuracy import accuracy, correct
from quality.dimensions.calibration_error import calibration_error
from quality.dimensions.class_balance import class_balance
from quality.dimensions.corruption_robustness import corruption_robustness
from quality.dimensions.params_m import params_m
from quality.observe import Observations, Plan, Progress, observe
from quality.pool import Pool
from quality.report_data import QualityReport, library_versions
from quality.result import DimensionResult
from quality.score import QUBA_2025, quba_score, standing
from quality.statistics import RESAMPLES, are_probabilities
from quality.subjects import Forms, Subject
from quality.suite import IMAGENET_1K, Suite

if TYPE_CHECKING:
    from handlers.bundle import Bundle

BATCH_SIZE = 250
_IMAGENET_CLASSES, _IMAGENET_IMAGES = 1000, 50_000

_NO_SCORE = "published means and deviations hold under the ImageNet-1k protocol only; name a pool of own models for a relative score"


def evaluate(
    subject: Subject | Forms | Bundle,
    suite: Suite,
    *,
    dimensions: Sequence[str] | None = None,
    budget: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    pool: Pool | None = None,
    resamples: int = RESAMPLES,
    batch_size: int = BATCH_SIZE,
    threads: int = 1,
) -> QualityReport:
    """Measure a subject; of a bundle all three forms, on the same pixels.

    Args:
        subject: any :class:`Subject`, or a bundle.
        suite: what to measure on.
        dimensions: which; by default all that subject and suite allow, the others with a reason in ``settings.not_measured``.
        budget: at most so many images, drawn at random, for the dimensions that need many passes (corruptions, attacks, made images).
            Accuracy, calibration and balance always use all. Intervals are honest: they come from the images used.
        seed: of corruptions, attacks, subset and intervals.
        progress: called with (stage, done, total).
        pool: own models the score is relative to. Without it, there is a score under the ImageNet-1k protocol only.
        resamples: of the bootstrap intervals, 0 for none.
        batch_size: images a forward pass.
        threads: of ONNX Runtime, for a bundle.

    Raises:
        EvaluationError: a dimension that was asked for could not be measured.
        UsageError: an unknown dimension, or a budget below 1.
    """
    if dimensions is not None and (unknown := [d for d in dimensions if d not in DIMENSIONS]):
        raise UsageError(f"{unknown[0]!r} is not a dimension.", f"The dimensions are {', '.join(DIMENSIONS)}.")
    if budget is not None and budget < 1:
        raise UsageError(f"A budget of {budget} images measures nothing.", "Give at least 1, better 200.")
    identity, subjects, main = _subjects(subject, threads)
    wanted = [d for d in DIMENSIONS if dimensions is None or d in dimensions]
    missing = _unavailable(subjects, main, suite)
    refused = [d for d in wanted if d in missing]
    if dimensions is not None and refused:
        raise EvaluationError(f"{refused[0]} cannot be measured: {missing[refused[0]]}.", "Leave it out, or give the suite what it needs.")
    wanted = [d for d in wanted if d not in missing]
    plan = Plan(
        [(c, s) for c in suite.corruptions for s in suite.severities] if "corruption_robustness" in wanted else [],
        _subset(len(suite.images), budget, seed),
        seed,
        batch_size,
    )
    classes = subjects[main].labels or suite.images.classes
    seen = observe(subjects, suite.images, subjects[main].preprocess, classes, plan, progress=progress)
    results = {
        name: _measure(one, seen, plan, name=name, wanted=wanted, classes=list(classes), resamples=resamples if name == main else 0)
        for name, one in subjects.items()
    }
    score, no_score = _score(results[main], suite, len(classes), pool)
    settings: dict[str, Any] = {
        "seed": seed,
        "budget": budget,
        "subset_images": len(plan.subset),
        "resamples": resamples,
        "corruptions": list(suite.corruptions),
        "severities": list(suite.severities),
        "outputs": "probabilities" if are_probabilities(seen.outputs[main]) else "logits",
        "forward_passes": seen.forwards,
        "not_measured": {d: reason for d, reason in missing.items() if dimensions is None},
        "no_score": no_score,
    }
    return QualityReport(
        identity,
        {"name": suite.name, "sha256": suite.sha256(), "images": len(suite.images), "protocol": suite.protocol},
        results[main],
        {name: {d: r.value for d, r in of.items()} for name, of in results.items()} if len(subjects) > 1 else None,
        score,
        settings,
        library_versions(),
    )


def _subjects(subject: Subject | Forms | Bundle, threads: int) -> tuple[dict[str, str | None], dict[str, Subject], str]:
    """What is measured, by name; and which of them the report is about."""
    from handlers.bundle import Bundle

    if isinstance(subject, Bundle):
        from quality.bundle_subject import open_bundle

        subject = open_bundle(subject, threads=threads)
    if isinstance(subject, Forms):
        forms = {"original": subject.original, "disentangled": subject.disentangled, "served": subject.served}
        return {"kind": "bundle", "model": subject.name, "artefact_sha256": subject.artefact_sha256}, forms, "served"
    return {"kind": subject.kind, "model": subject.name, "artefact_sha256": subject.sha256}, {subject.name: subject}, subject.name


def _unavailable(subjects: Mapping[str, Subject], main: str, suite: Suite) -> dict[str, str]:
    """Dimensions that cannot be measured, and why."""
    reasons = {}
    if subjects[main].parameters is None:
        reasons["params_m"] = "the number of parameters is not known"
    if not suite.corruptions:
        reasons["corruption_robustness"] = "the suite names no corruption"
    for name in ("adversarial_robustness", "ood_robustness", "object_focus", "shape_bias"):
        reasons[name] = "not available yet"
    return reasons


def _subset(images: int, budget: int | None, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64, sorted: the images of the costly passes."""
    if budget is None or budget >= images:
        return np.arange(images)
    return np.sort(np.random.default_rng(seed).choice(images, budget, replace=False))


def _measure(
    subject: Subject, seen: Observations, plan: Plan, *, name: str, wanted: Sequence[str], classes: list[str], resamples: int
) -> dict[str, DimensionResult]:
    """The dimensions of one subject."""
    outputs, labels = seen.outputs[name], seen.labels
    clean = correct(outputs, labels)[plan.subset]
    results: dict[str, DimensionResult] = {}
    for dimension in wanted:
        if dimension == "accuracy":
            results[dimension] = accuracy(outputs, labels, classes)
        elif dimension == "calibration_error":
            results[dimension] = calibration_error(outputs, labels, resamples=resamples, seed=plan.seed)
        elif dimension == "class_balance":
            results[dimension] = class_balance(outputs, labels, classes, resamples=resamples, seed=plan.seed)
        elif dimension == "corruption_robustness":
            results[dimension] = corruption_robustness(clean, seen.corrupted[name], resamples=resamples, seed=plan.seed)
        elif dimension == "params_m" and subject.parameters is not None:
            results[dimension] = params_m(subject.parameters)
    return results


def _score(
    results: Mapping[str, DimensionResult], suite: Suite, classes: int, pool: Pool | None
) -> tuple[dict[str, Any] | None, str | None]:
    """The score, or why there is none."""
    values = {name: result.value for name, result in results.items()}
    if pool is None:
        if suite.protocol != IMAGENET_1K:
            return (
                None,
                _NO_SCORE,
            )
        if classes != _IMAGENET_CLASSES or len(suite.images) != _IMAGENET_IMAGES:
            return None, f"the ImageNet-1k protocol has {_IMAGENET_CLASSES} classes and {_IMAGENET_IMAGES} images"
    score = quba_score(values, reference=QUBA_2025 if pool is None else pool)
    place = standing(score, pool)
    return {**score.to_json(), "rank": place.rank, "of": place.of, "nearest": [list(item) for item in place.nearest]}, None
