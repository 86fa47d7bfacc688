"""The passes over the images: one decode and one clean forward pass of each subject feed every dimension that needs
them.

The work is cut into jobs (``quality/evaluation/jobs.py``). Few images pass at once, so that memory does not grow with
the images' number or size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.exporter.progress import StepProgress
from elude.handlers.images.preprocess import unit_of
from elude.handlers.images.read_pixels import Pixels
from elude.quality.evaluation.extra_sets import Predictions, decisions, label_names
from elude.quality.evaluation.jobs import (
    ATTACKED,
    CLEAN,
    CORRUPTED,
    FORWARD_PIXELS,
    GRADIENT_PIXELS,
    Attack,
    Job,
    Plan,
    Work,
)
from elude.quality.subjects.subject import Subject, check_width, outputs_of
from elude.quality.suites.corruptions.parallel import corrupt_in_parts
from elude.quality.suites.image_sets import Batch, ImageSet

__all__ = ["Attack", "Job", "Observations", "Plan", "StepProgress", "Work", "gather", "gather_ready", "run_job"]

Task = tuple[NDArray[np.uint8], str, int, list[int], int]
Answer = dict[str, NDArray[Any]]


@dataclass
class Observations:
    """What the passes saw; M is the number of images in the subset.

    Attributes:
        labels: int64 (N,).
        outputs: subject to float32 (N, C) on the clean images.
        corrupted: subject to condition to bool (M,), whether the answer was right.
        attacked: subject to attack to bool (M,).
        ready: stage to subject to int64 (K,) predictions and labels.
        pixels: uint8 (M, H, W, 3), if asked for.
        forwards: images that went through each subject.
    """

    labels: NDArray[np.int64]
    outputs: dict[str, NDArray[np.float32]]
    corrupted: dict[str, dict[tuple[str, int], NDArray[np.bool_]]] = field(default_factory=dict)
    attacked: dict[str, dict[str, NDArray[np.bool_]]] = field(default_factory=dict)
    ready: Predictions = field(default_factory=dict)
    pixels: NDArray[np.uint8] | None = None
    forwards: int = 0


def corruption_task(work: Work, job: Job) -> Task | None:
    """The arguments of :func:`corrupt_in_parts` for a job whose images have to be made, None for others."""
    condition = job.condition
    if condition is None or condition in work.corrupted:
        return None
    batch = _subset(work, job)
    pixels = batch.pixels.astype(np.uint8, copy=False)  # corruptions are measured on pictures only
    return pixels, *condition, batch.numbers.tolist(), work.plan.seed


def run_job(work: Work, job: Job, corrupted: NDArray[np.uint8] | None = None) -> Answer:
    """Let all subjects answer one batch.

    Args:
        work: what the job needs.
        job: one of ``work.jobs()``.
        corrupted: the result of its task, if that was done elsewhere.
    """
    if job.name == CLEAN:
        return _clean(work, job)
    if job.name == ATTACKED:
        return _attacked(work, job)
    return _ready(work, job) if job.condition is None else _corrupted(work, job, job.condition, corrupted)


def _clean(work: Work, job: Job) -> Answer:
    batch = work.decoded.batch(work, job)
    answer: Answer = {"labels": batch.labels}
    if work.plan.keep_pixels:
        answer["pixels"] = _subset(work, job).pixels
    return answer | {f"outputs/{name}": _outputs(work, s, batch.pixels) for name, s in work.subjects.items()}


def _corrupted(work: Work, job: Job, condition: tuple[str, int], pixels: Pixels | None) -> Answer:
    batch = _subset(work, job)
    if pixels is None:
        task = corruption_task(work, job)
        pixels = corrupt_in_parts(*task) if task else _rows(work.corrupted[condition], work, batch.numbers)
    subjects = work.subjects.items()
    return {f"right/{name}": _outputs(work, s, pixels).argmax(axis=1) == batch.labels for name, s in subjects}


def _attacked(work: Work, job: Job) -> Answer:
    """Right answers to adversarial images, which are made and dropped a few at a time."""
    assert work.attack is not None
    batch, step = _subset(work, job), work.at_once(GRADIENT_PIXELS)
    right: dict[str, list[NDArray[np.bool_]]] = {}
    for start in range(0, len(batch.labels), step):
        rows = slice(start, start + step)
        made = work.attack(unit_of(batch.pixels[rows]), batch.labels[rows], batch.numbers[rows])
        for kind, adversarial in made.items():
            for name, subject in work.subjects.items():
                answers = subject.outputs(adversarial).argmax(axis=1)
                right.setdefault(f"right/{name}/{kind}", []).append(answers == batch.labels[rows])
    return {key: np.concatenate(parts) for key, parts in right.items()}


def _subset(work: Work, job: Job) -> Batch:
    """The job's images that are in the subset."""
    batch = work.decoded.batch(work, job)
    inside = (batch.numbers >= job.start) & (batch.numbers < job.stop)
    chosen = inside & np.isin(batch.numbers, work.plan.subset)
    return Batch(batch.numbers[chosen], batch.pixels[chosen], batch.labels[chosen])


def _outputs(work: Work, subject: Subject, pixels: Pixels) -> NDArray[np.float32]:
    """float32 (N, C) of pixels, as many at once as memory allows."""
    return check_width(outputs_of(subject, pixels, work.at_once(FORWARD_PIXELS)), len(work.classes), subject.name)


def _rows(images: ImageSet, work: Work, numbers: NDArray[np.int64]) -> Pixels:
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers):
        return images.batch(work.preprocess, work.classes, first, last + 1).pixels
    return np.concatenate([images.batch(work.preprocess, work.classes, int(n), int(n) + 1).pixels for n in numbers])


def _ready(work: Work, job: Job) -> Answer:
    shift = work.ready[job.name]
    batch = shift.images.batch(work.preprocess, label_names(shift, work.classes), job.start, job.stop)
    answers = {
        f"predicted/{name}": decisions(shift, _outputs(work, subject, batch.pixels), work.classes)
        for name, subject in work.subjects.items()
    }
    return {"labels": batch.labels, **answers}


def gather(work: Work, jobs: Sequence[Job], answers: Sequence[Answer]) -> Observations:
    """Put the answers of all jobs together, in the order of the jobs; empties ``answers`` as it goes."""
    joined = _joined(jobs, answers)
    clean, attacked = joined[CLEAN], joined.get(ATTACKED, {})
    kinds = dict.fromkeys(key.split("/")[-1] for key in attacked)
    return Observations(
        clean["labels"],
        {name: clean[f"outputs/{name}"] for name in work.subjects},
        {
            name: {(c, s): joined[f"{CORRUPTED}/{c}/{s}"][f"right/{name}"] for c, s in work.plan.corruptions}
            for name in work.subjects
        },
        {name: {kind: attacked[f"right/{name}/{kind}"] for kind in kinds} for name in work.subjects},
        _predictions(work, joined),
        clean.get("pixels"),
        len(work.images)
        + len(work.plan.subset) * (len(work.plan.corruptions) + len(kinds))
        + sum(len(shift.images) for shift in work.ready.values()),
    )


def gather_ready(work: Work, jobs: Sequence[Job], answers: Sequence[Answer]) -> Predictions:
    """The predictions and labels of the ready sets alone, by stage and subject."""
    return _predictions(work, _joined(jobs, answers))


def _joined(jobs: Sequence[Job], answers: Sequence[Answer]) -> dict[str, Answer]:
    parts: dict[str, dict[str, list[NDArray[Any]]]] = {}
    for job, answer in zip(jobs, answers, strict=True):
        for key in list(answer):
            parts.setdefault(job.name, {}).setdefault(key, []).append(answer.pop(key))
    return {name: {key: np.concatenate(keys.pop(key)) for key in list(keys)} for name, keys in parts.items()}


def _predictions(work: Work, joined: Mapping[str, Answer]) -> Predictions:
    return {
        stage: {name: (joined[stage][f"predicted/{name}"], joined[stage]["labels"]) for name in work.subjects}
        for stage in work.ready
    }
