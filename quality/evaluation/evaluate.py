"""Measure one subject on one suite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elude.exporter.engines import LOCAL
from elude.exporter.progress import StepProgress
from elude.handlers.errors import EvaluationError, UsageError
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.quality_json import QualityReport, library_versions
from elude.quality.dimensions.result import DimensionResult
from elude.quality.evaluation.engines import Cache, fingerprint, run
from elude.quality.evaluation.extra_sets import (
    CONFLICT,
    ExtraAnswers,
    answers_of,
    label_names,
    ready_sets,
    texture_labels,
)
from elude.quality.evaluation.image_answers import image_answers
from elude.quality.evaluation.made_sets import MADE, made_sets
from elude.quality.evaluation.measure import measure, unavailable
from elude.quality.evaluation.observe import Observations, Plan, Work, gather, gather_ready
from elude.quality.evaluation.published import (
    SETTINGS,
    PublishedAttacks,
    as_published,
    comparable_suite,
    not_comparable,
)
from elude.quality.evaluation.records import Measured
from elude.quality.scores.pool import Pool
from elude.quality.scores.quba import QUBA_2025, quba_score, standing
from elude.quality.statistics.intervals import RESAMPLES, are_probabilities
from elude.quality.subjects.devices import CPU, PRECISIONS, at_once, resolve
from elude.quality.subjects.output_names import output_names
from elude.quality.subjects.subject import Forms, Subject
from elude.quality.suites.choice import stratified
from elude.quality.suites.suite import ShiftedSet, Suite

if TYPE_CHECKING:
    from torch import nn

    from elude.exporter.models.loaded import LoadedModel
    from elude.handlers.bundle.bundle import Bundle
    from elude.quality.evaluation.attack_strengths import Attacks

BATCH_SIZE = 250
_READY: Mapping[str, Callable[[Suite], bool]] = {
    "ood_robustness": lambda suite: bool(suite.shifted),
    "object_focus": lambda suite: suite.mixed is not None,
    "shape_bias": lambda suite: suite.cue_conflict is not None,
}
_MADE = frozenset(_READY)  # dimensions whose sets are made where they are not ready


def evaluate(
    subject: Subject | Forms | Bundle,
    suite: Suite,
    *,
    dimensions: Sequence[str] | None = None,
    among: Collection[str] = DIMENSIONS,
    budget: int | None = None,
    seed: int = 0,
    progress: StepProgress | None = None,
    pool: Pool | None = None,
    resamples: int = RESAMPLES,
    batch_size: int = BATCH_SIZE,
    threads: int = 1,
    workers: int = 0,
    engine: str = LOCAL,
    cache: str | Path | None = None,
    published: bool = False,
    device: str = CPU,
    precision: str = PRECISIONS[0],
    keep_answers: bool = True,
    model: str | nn.Module | LoadedModel | None = None,
    before: Callable[[Work], None] | None = None,
) -> QualityReport:
    """Measure a subject; of a bundle all three forms, on the same pixels.

    Args:
        subject: any :class:`Subject`, or a bundle.
        suite: what to measure on.
        dimensions: which; by default all that subject and suite allow, the others with a reason in
            ``settings.not_measured``.
        among: the dimensions that are thought of when ``dimensions`` is not given.
        budget: at most that many images for the dimensions that need many passes (corruptions,
            attacks, made images), and of each ready set beyond the validation images; a seeded
            choice in which each class keeps its part. Accuracy, calibration and balance always use
            all. Intervals are honest: they come from the images used.
        seed: of corruptions, attacks, subset and intervals.
        progress: called with (stage, done, total).
        pool: own models the score is relative to. Without it, there is a score under the ImageNet-1k protocol only.
        resamples: of the bootstrap intervals, 0 for none.
        batch_size: images per forward pass.
        threads: of ONNX Runtime, for a bundle.
        workers: processes that corrupt images while the model runs; with ``engine="ray"``, of the
            cluster that is started here.
        engine: ``local`` or ``ray``; the results are identical.
        cache: a folder for finished batches, so that an evaluation that was stopped resumes. Needs
            a subject with a known hash.
        published: measure as the published code does (:mod:`elude.quality.evaluation.published`), which alone gives
            a score among the 326 published models.
        device: where a bundle's models run: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; other subjects say so
            themselves.
        precision: of a bundle's torch models, as for :class:`~elude.quality.subjects.torch_subject.TorchSubject`.
        keep_answers: also return the answer to each clean image, with thumbnails of the most confident mistakes.
        model: the original of a bundle that cannot load it by name (elude.exporter.models.original).
        before: called with the work before anything is measured, to forecast it.

    Raises:
        EvaluationError: subject or suite lack what a dimension that was asked for needs, the suite's classes are not
            the model's, or nothing at all could be measured. A dimension that turns out to be undefined on these
            images is left out with its reason, and the others stay.
        UsageError: an unknown dimension, or a budget below 1.
    """
    if dimensions is not None and (unknown := [d for d in dimensions if d not in DIMENSIONS]):
        raise UsageError(f"{unknown[0]!r} is not a dimension.", f"The dimensions are {', '.join(DIMENSIONS)}.")
    if budget is not None and budget < 1:
        raise UsageError(f"A budget of {budget} images measures nothing.", "Give 200 or more.")
    suite = as_published(suite) if published else suite
    identity, subjects, main = _subjects(subject, threads, resolve(device), precision, model)
    wanted = [d for d in DIMENSIONS if d in (among if dimensions is None else dimensions)]
    attacked = _attacked(subjects)
    missing = unavailable(subjects[main], suite, attackable=attacked is not None)
    refused = [d for d in wanted if d in missing]
    if dimensions is not None and refused:
        raise EvaluationError(
            f"{refused[0]} cannot be measured: {missing[refused[0]]}.", "Leave it out, or give the suite what it needs."
        )
    wanted = [d for d in wanted if d not in missing]
    if wanted in ([], ["params_m"]) and "accuracy" in missing:
        raise EvaluationError(
            f"No dimension applies: accuracy cannot be measured: {missing['accuracy']}.",
            "Measure such a model by a metric of its own kind.",
        )
    plan = Plan(
        [(c, s) for c in suite.corruptions for s in suite.severities] if "corruption_robustness" in wanted else [],
        stratified(suite.images.class_of(), budget, seed),
        seed,
        batch_size,
        keep_pixels=suite.dark_background and any(d in wanted and not ready(suite) for d, ready in _READY.items()),
        wider=min(at_once(getattr(one, "device", CPU)) for one in subjects.values()),
    )
    names = output_names(subjects[main], suite)
    classes = names.keys
    preprocess = subjects[main].preprocess
    make = partial(PublishedAttacks, preprocess=preprocess) if published else _attack
    attack = make(attacked, seed=seed) if "adversarial_robustness" in wanted and attacked is not None else None
    corrupted = {(c, s): images for c, s, images in suite.corrupted}
    ready, paired = ready_sets(suite, wanted, plan.subset, budget, seed)
    work = Work(subjects, suite.images, corrupted, ready, preprocess, classes, plan, attack)
    if before is not None:
        before(work)
    suite_sha256, versions = suite.sha256(), library_versions()
    kept = None
    if cache is not None:
        if identity["artefact_sha256"] is None:
            raise UsageError(
                f"{subjects[main].name} has no hash, so a cache cannot tell it from another.",
                "Evaluate it without a cache.",
            )
        kept = Cache.open(
            cache,
            fingerprint(
                work,
                suite_sha256,
                identity["artefact_sha256"],
                {
                    **versions,
                    "attack": attack is not None,
                    "budget": budget,
                    "published": published,
                    **_arithmetic(subjects),
                },
            ),
        )
    jobs = work.jobs()
    how: dict[str, Any] = {"engine": engine, "workers": workers, "cache": kept, "progress": progress}
    seen = gather(work, jobs, run(work, jobs, **how))
    extra, passes, undefined = _extra(work, suite, wanted, seen, paired, how)
    wanted = [d for d in wanted if d not in undefined]
    attacks: dict[str, Any] = (
        {} if attack is None else {"as published": attack.settings} if published else attack.settings
    )
    records = Measured(
        suite, plan.subset, plan.corruptions, ready, attacks, seed, _unusual(subjects, published)
    ).records(wanted)
    results: dict[str, dict[str, DimensionResult]] = {}
    for name, one in subjects.items():
        results[name], reasons = measure(
            one,
            seen,
            extra[name],
            name=name,
            subset=plan.subset,
            wanted=wanted,
            classes=names.titles,
            resamples=resamples if name == main else 0,
            seed=seed,
            records=records,
        )
        undefined |= reasons if name == main else {}
    if not results[main]:
        why = next(iter(undefined.values()), "the suite and the model allow no dimension")
        raise EvaluationError(
            f"Nothing could be measured of {subjects[main].name}: {why}",
            "Check the labels of the images and the model's answers.",
        )
    other = not_comparable(suite, attacked, budget) if published else {}
    score, no_score = _score(results[main], suite, len(classes), pool, other if published else None)
    settings: dict[str, Any] = {
        "seed": seed,
        "budget": budget,
        "subset_images": len(plan.subset),
        "resamples": resamples,
        "corruptions": list(suite.corruptions),
        "severities": list(suite.severities),
        "outputs": "probabilities" if are_probabilities(seen.outputs[main]) else "logits",
        "forward_passes": passes,
        "not_measured": ({} if dimensions is not None else missing) | undefined,
        "no_score": no_score,
        **_arithmetic(subjects),
        "published": {"settings": dict(SETTINGS), "not_comparable": other} if published else None,
    }
    answers = (
        image_answers(seen.outputs[main], seen.labels, suite.images, preprocess, classes, names.titles).to_bytes()
        if keep_answers
        else None
    )
    return QualityReport(
        identity,
        {"name": suite.name, "sha256": suite_sha256, "images": len(suite.images), "protocol": suite.protocol},
        results[main],
        {name: {d: r.value for d, r in of.items()} for name, of in results.items()} if len(subjects) > 1 else None,
        score,
        settings,
        versions,
        None if answers is None else hashlib.sha256(answers).hexdigest(),
        answers,
    )


def _subjects(
    subject: Subject | Forms | Bundle,
    threads: int,
    device: str,
    precision: str,
    model: str | nn.Module | LoadedModel | None,
) -> tuple[dict[str, str | None], dict[str, Subject], str]:
    """What is measured, by name; and which of them the report is about."""
    from elude.handlers.bundle.bundle import Bundle

    if isinstance(subject, Bundle):
        from elude.exporter.onnx_files.original_file import made_from_onnx
        from elude.quality.subjects.bundle_subject import open_bundle, served_graph

        if made_from_onnx(subject.manifest.source) and model is None:
            name, sha256 = subject.manifest.source.model, subject.artefact_sha256
            identity: dict[str, str | None] = {"kind": "bundle", "model": name, "artefact_sha256": sha256}
            return identity, {"served": served_graph(subject, threads=threads, device=device)}, "served"
        subject = open_bundle(subject, threads=threads, device=device, precision=precision, model=model)
    if isinstance(subject, Forms):
        forms = {"original": subject.original, "disentangled": subject.disentangled, "served": subject.served}
        return {"kind": "bundle", "model": subject.name, "artefact_sha256": subject.artefact_sha256}, forms, "served"
    return (
        {"kind": subject.kind, "model": subject.name, "artefact_sha256": subject.sha256},
        {subject.name: subject},
        subject.name,
    )


def _arithmetic(subjects: Mapping[str, Subject]) -> dict[str, Any]:
    """Where each subject ran, and in which precision: results differ by rounding."""
    known = {name: one for name, one in subjects.items() if hasattr(one, "device")}
    return {
        "devices": {name: getattr(one, "device", CPU) for name, one in known.items()},
        "precisions": {name: getattr(one, "precision", PRECISIONS[0]) for name, one in known.items()},
    }


def _unusual(subjects: Mapping[str, Subject], published: bool) -> dict[str, Any]:
    """What makes values incomparable with those of a usual evaluation."""
    precisions = sorted({getattr(one, "precision", PRECISIONS[0]) for one in subjects.values()} - {PRECISIONS[0]})
    return ({"published": True} if published else {}) | ({"precision": precisions[0]} if precisions else {})


def _attacked(subjects: Mapping[str, Subject]) -> Any:
    """The torch model whose gradients make the adversarial images for all forms: the disentangled twin, or the
    subject itself.
    """
    return getattr(subjects.get("disentangled", next(iter(subjects.values()))), "on_pixels", None)


def _attack(module: Any, seed: int) -> Attacks:
    from elude.quality.evaluation.attack_strengths import Attacks  # imports torch, which a served graph does without

    return Attacks(module, seed)


def _extra(
    work: Work, suite: Suite, wanted: Sequence[str], seen: Observations, paired: bool, how: Mapping[str, Any]
) -> tuple[dict[str, ExtraAnswers], int, dict[str, str]]:
    """Each subject's answers beyond the clean images, the images that went through each subject in all, and the
    dimensions whose images could not be made, with the reason.
    """
    names, textures = list(work.classes), None
    if CONFLICT in work.ready:
        names = label_names(work.ready[CONFLICT], work.classes)
        textures = texture_labels(work.ready[CONFLICT], names)
    extra = {name: answers_of(name, seen.ready, names, textures, paired=paired) for name in work.subjects}
    if seen.pixels is None:
        return extra, seen.forwards, {}
    labels = seen.labels[work.plan.subset]
    sets: dict[str, ShiftedSet] = {}
    undefined = {}
    for dimension in [d for d in wanted if d in _MADE and not _READY[d](suite)]:
        try:
            made = made_sets(seen.pixels, labels, classes=work.classes, wanted=[dimension], seed=work.plan.seed)
        except EvaluationError as error:  # the others stay
            undefined[dimension] = str(error)
            continue
        sets |= made.sets
        textures = made.textures if made.textures is not None else textures
    more = replace(work, ready=sets)
    jobs = more.ready_jobs()
    predictions = gather_ready(more, jobs, run(more, jobs, stage="made images", **how))
    passes = seen.forwards + sum(len(shift.images) for shift in sets.values())
    from_masks = {
        name: answers_of(name, predictions, work.classes, textures, prefix=f"{MADE}/", paired=True)
        for name in work.subjects
    }
    return {name: _ready_first(extra[name], from_masks[name]) for name in work.subjects}, passes, undefined


def _ready_first(ready: ExtraAnswers, made: ExtraAnswers) -> ExtraAnswers:
    """Ready sets take the place of made ones of their kind."""
    return ExtraAnswers(
        ready.shifted or made.shifted,
        ready.paired if ready.shifted else made.paired,
        made.mixed if ready.mixed is None else ready.mixed,
        made.conflict if ready.conflict is None else ready.conflict,
        made.conflict_names if ready.conflict is None else ready.conflict_names,
    )


def _score(
    results: Mapping[str, DimensionResult],
    suite: Suite,
    classes: int,
    pool: Pool | None,
    not_comparable: Mapping[str, str] | None,
) -> tuple[dict[str, Any] | None, str | None]:
    """The score, or why there is none; ``not_comparable`` is None where it was not measured as published."""
    values = {name: result.value for name, result in results.items()}
    if pool is None:
        reason = comparable_suite(suite, classes)
        if reason is None and not_comparable is None:
            reason = "the published models were measured otherwise: measure as published (--published) to compare"
        if reason is not None:
            return None, f"{reason}; a pool of own models gives a relative score"
        values = {name: value for name, value in values.items() if name not in (not_comparable or {})}
        if not values:
            return None, "no dimension is comparable with the published ones"
    score = quba_score(values, reference=QUBA_2025 if pool is None else pool)
    place = standing(score, pool)
    return {
        **score.to_json(),
        "rank": place.rank,
        "of": place.of,
        "nearest": [list(item) for item in place.nearest],
    }, None
