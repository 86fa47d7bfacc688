"""The passes over the images: one decode and one clean forward pass of each subject feed every dimension that needs
them.

The work is cut into jobs, one batch of one set each. A job's answer depends on the job alone, so
that jobs can be kept on disk, resumed, and done elsewhere (``quality/evaluation/engines.py``) with
identical results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.images.preprocess import Preprocess
from elude.quality.evaluation.extra_sets import Predictions, decisions, label_names
from elude.quality.subjects.subject import Images, Subject, as_unit, check_width
from elude.quality.suites.corruptions import corrupt
from elude.quality.suites.image_sets import Batch, ImageSet
from elude.quality.suites.suite import ShiftedSet

Progress = Callable[[str, int, int], None]
Attack = Callable[[Images, NDArray[np.int64], NDArray[np.int64]], Mapping[str, Images]]
Corrupter = Callable[[NDArray[np.uint8], Sequence[tuple[str, int]], Sequence[int], int], Iterable[NDArray[np.uint8]]]
Answer = dict[str, NDArray[Any]]
CLEAN = "images"
_ATTACK_PASSES = 2 + 3 * 11  # two sets of adversarial images, and eleven gradients to make them


@dataclass(frozen=True)
class Plan:
    """What to look at.

    Attributes:
        corruptions: (name, severity) pairs.
        subset: int64, sorted, the images that the costly passes are limited to.
        seed: of the corruptions.
        batch_size: images a forward pass.
        keep_pixels: whether the subset's pixels are needed afterwards.
    """

    corruptions: Sequence[tuple[str, int]]
    subset: NDArray[np.int64]
    seed: int
    batch_size: int
    keep_pixels: bool = False


@dataclass(frozen=True)
class Job:
    """One batch of one set: ``images``, or the name of a ready set."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Work:
    """All that a job needs.

    Attributes:
        subjects: by name.
        images: the clean set.
        corrupted: ready corrupted sets, in the order of the clean one.
        ready: other ready sets by the name of their stage.
        classes: the names of the outputs.
        attack: makes adversarial images, None for no attack.
    """

    subjects: Mapping[str, Subject]
    images: ImageSet
    corrupted: Mapping[tuple[str, int], ImageSet]
    ready: Mapping[str, ShiftedSet]
    preprocess: Preprocess
    classes: Sequence[str]
    plan: Plan
    attack: Attack | None = None

    def jobs(self) -> list[Job]:
        """In order."""
        return [*self._batches(CLEAN, len(self.images)), *self.ready_jobs()]

    def ready_jobs(self) -> list[Job]:
        """Those of the ready sets alone."""
        return [job for name, shift in self.ready.items() for job in self._batches(name, len(shift.images))]

    def _batches(self, name: str, size: int) -> list[Job]:
        step = self.plan.batch_size
        return [Job(name, start, min(start + step, size)) for start in range(0, size, step)]

    def passes(self, job: Job) -> int:
        """How many images it takes through each subject, a gradient counted as three: what the time left is told
        from.
        """
        images = job.stop - job.start
        if job.name != CLEAN:
            return images
        changed = np.count_nonzero((self.plan.subset >= job.start) & (self.plan.subset < job.stop))
        return images + int(changed) * (len(self.plan.corruptions) + (_ATTACK_PASSES if self.attack is not None else 0))


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


def corrupt_here(
    pixels: NDArray[np.uint8], conditions: Sequence[tuple[str, int]], numbers: Sequence[int], seed: int
) -> Iterable[NDArray[np.uint8]]:
    """The corrupted images of each condition, one after another in this process."""
    return (corrupt(pixels, *condition, numbers=numbers, seed=seed) for condition in conditions)


def run_job(work: Work, job: Job, corrupter: Corrupter = corrupt_here) -> Answer:
    """Let all subjects answer one batch."""
    if job.name != CLEAN:
        return _ready(work, job)
    batch = work.images.batch(work.preprocess, work.classes, job.start, job.stop)
    clean = as_unit(batch.pixels)
    answer: Answer = {"labels": batch.labels}
    for name, subject in work.subjects.items():
        answer[f"outputs/{name}"] = check_width(subject.outputs(clean), len(work.classes), subject.name)
    chosen = np.isin(batch.numbers, work.plan.subset)
    if chosen.any():
        answer |= _changed(
            work, Batch(batch.numbers[chosen], batch.pixels[chosen], batch.labels[chosen]), clean[chosen], corrupter
        )
    return answer


def _changed(work: Work, batch: Batch, clean: Images, corrupter: Corrupter) -> Answer:
    """Answers to the corrupted and the attacked images of the subset."""
    answer: Answer = {"pixels": batch.pixels} if work.plan.keep_pixels else {}
    made = [condition for condition in work.plan.corruptions if condition not in work.corrupted]
    images = dict.fromkeys(work.plan.corruptions)
    stream = zip(made, corrupter(batch.pixels, made, batch.numbers.tolist(), work.plan.seed), strict=True)
    ready = (
        (condition, _rows(work.corrupted[condition], work, batch.numbers))
        for condition in images
        if condition in work.corrupted
    )
    for part in (stream, ready):
        for (corruption, severity), pixels in part:
            changed = as_unit(pixels)
            for name, subject in work.subjects.items():
                answer[f"corrupted/{name}/{corruption}/{severity}"] = (
                    subject.outputs(changed).argmax(axis=1) == batch.labels
                )
    if work.attack is not None:
        for kind, adversarial in work.attack(clean, batch.labels, batch.numbers).items():
            for name, subject in work.subjects.items():
                answer[f"attacked/{name}/{kind}"] = subject.outputs(adversarial).argmax(axis=1) == batch.labels
    return answer


def _rows(images: ImageSet, work: Work, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers):
        return images.batch(work.preprocess, work.classes, first, last + 1).pixels
    return np.concatenate([images.batch(work.preprocess, work.classes, int(n), int(n) + 1).pixels for n in numbers])


def _ready(work: Work, job: Job) -> Answer:
    shift = work.ready[job.name]
    batch = shift.images.batch(work.preprocess, label_names(shift, work.classes), job.start, job.stop)
    clean = as_unit(batch.pixels)
    answers = {
        f"predicted/{name}": decisions(
            shift, check_width(subject.outputs(clean), len(work.classes), subject.name), work.classes
        )
        for name, subject in work.subjects.items()
    }
    return {"labels": batch.labels, **answers}


def gather(work: Work, jobs: Sequence[Job], answers: Sequence[Answer]) -> Observations:
    """Put the answers of all jobs together, in the order of the jobs."""
    whole = _joined(jobs, answers)
    clean = whole[CLEAN]
    kinds = dict.fromkeys(key.split("/")[-1] for key in clean if key.startswith("attacked/"))
    subset = len(work.plan.subset)
    return Observations(
        clean["labels"],
        {name: clean[f"outputs/{name}"] for name in work.subjects},
        {
            name: {(c, s): clean[f"corrupted/{name}/{c}/{s}"] for c, s in work.plan.corruptions}
            for name in work.subjects
        },
        {name: {kind: clean[f"attacked/{name}/{kind}"] for kind in kinds} for name in work.subjects},
        _predictions(work, whole),
        clean.get("pixels"),
        len(work.images)
        + subset * (len(work.plan.corruptions) + len(kinds))
        + sum(len(shift.images) for shift in work.ready.values()),
    )


def gather_ready(work: Work, jobs: Sequence[Job], answers: Sequence[Answer]) -> Predictions:
    """The predictions and labels of the ready sets alone, by stage and subject."""
    return _predictions(work, _joined(jobs, answers))


def _joined(jobs: Sequence[Job], answers: Sequence[Answer]) -> dict[str, Answer]:
    parts: dict[str, dict[str, list[NDArray[Any]]]] = {}
    for job, answer in zip(jobs, answers, strict=True):
        for key, values in answer.items():
            parts.setdefault(job.name, {}).setdefault(key, []).append(values)
    return {name: {key: np.concatenate(values) for key, values in of.items()} for name, of in parts.items()}


def _predictions(work: Work, whole: Mapping[str, Answer]) -> Predictions:
    return {
        stage: {name: (whole[stage][f"predicted/{name}"], whole[stage]["labels"]) for name in work.subjects}
        for stage in work.ready
    }
