"""What an evaluation is cut into: one batch of one set under one condition each.

A job's answer depends on the job alone, so that jobs can be kept on disk, resumed, and done elsewhere
(``quality/evaluation/engines.py``) with identical results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.images.preprocess import Preprocess
from elude.quality.subjects.subject import Images, Subject
from elude.quality.suites.image_sets import Batch, ImageSet
from elude.quality.suites.suite import ShiftedSet

Attack = Callable[[Images, NDArray[np.int64], NDArray[np.int64]], Mapping[str, Images]]
CLEAN, CORRUPTED, ATTACKED = "images", "corrupted", "attacked"
GRADIENT_PASSES = 3  # what a gradient costs beside a forward pass
ATTACKED_SETS = 4  # FGSM and PGD, each at two strengths
_GRADIENTS = 11  # one for FGSM and ten for PGD, which make two sets
# Images at once follow from these, so that memory does not depend on the model's input size: 32 images of 224 x 224
# in a forward pass or while they are corrupted, 8 in a gradient, which keeps every layer's output.
FORWARD_PIXELS, GRADIENT_PIXELS = 32 * 224**2, 8 * 224**2


@dataclass(frozen=True)
class Plan:
    """What to look at.

    Attributes:
        corruptions: (name, severity) pairs.
        subset: int64, sorted, the images that the costly passes are limited to.
        seed: of the corruptions.
        batch_size: images per job, at most; a forward pass takes fewer where they are large.
        keep_pixels: whether the subset's pixels are needed afterwards.
        wider: how many times more images pass at once than on the processor.
    """

    corruptions: Sequence[tuple[str, int]]
    subset: NDArray[np.int64]
    seed: int
    batch_size: int
    keep_pixels: bool = False
    wider: int = 1


@dataclass(frozen=True)
class Job:
    """One batch of one set: ``images``, ``corrupted/<name>/<severity>`` or ``attacked`` of the clean set, or the name
    of a ready set.
    """

    name: str
    start: int
    stop: int

    @property
    def condition(self) -> tuple[str, int] | None:
        """Corruption and severity, None for other jobs."""
        kind, _, rest = self.name.partition("/")
        name, _, severity = rest.rpartition("/")
        return (name, int(severity)) if kind == CORRUPTED else None


class Decoded:
    """The batches of the clean set that were decoded last: several jobs in a row look at the same one."""

    def __init__(self) -> None:
        self._batches: dict[tuple[int, int], Batch] = {}

    def batch(self, work: Work, job: Job) -> Batch:
        """The clean batch that holds the job's images."""
        start = job.start // work.plan.batch_size * work.plan.batch_size
        key = start, min(start + work.plan.batch_size, len(work.images))
        if key not in self._batches:
            while len(self._batches) > 1:
                self._batches.pop(next(iter(self._batches)))
            self._batches[key] = work.images.batch(work.preprocess, work.classes, *key)
        return self._batches[key]

    def __getstate__(self) -> dict[str, Any]:
        """Another process decodes for itself."""
        return {"_batches": {}}


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
    decoded: Decoded = field(default_factory=Decoded, compare=False)

    @property
    def attacked_sets(self) -> int:
        """Sets of adversarial images; the published attacks have one strength."""
        return int(getattr(self.attack, "sets", ATTACKED_SETS))

    @property
    def gradients(self) -> int:
        """Gradient steps that make all adversarial images of one image."""
        return self.attacked_sets // 2 * _GRADIENTS

    def jobs(self) -> list[Job]:
        """In order: all that is asked of one clean batch, then of the next, then the ready sets."""
        jobs: list[Job] = []
        for job in self._batches(CLEAN, 0, len(self.images), self.plan.batch_size):
            changed = self._chosen(job) > 0
            conditions = self.plan.corruptions if changed else ()
            jobs += [job, *(Job(f"{CORRUPTED}/{c}/{s}", job.start, job.stop) for c, s in conditions)]
            if self.attack is not None and changed:
                jobs += self._batches(ATTACKED, job.start, job.stop, 4 * self.at_once(GRADIENT_PIXELS))
        return [*jobs, *self.ready_jobs()]

    def ready_jobs(self) -> list[Job]:
        """Those of the ready sets alone."""
        sizes = {name: len(shift.images) for name, shift in self.ready.items()}
        return [job for name, size in sizes.items() for job in self._batches(name, 0, size, self.plan.batch_size)]

    def _batches(self, name: str, first: int, end: int, step: int) -> list[Job]:
        return [Job(name, start, min(start + step, end)) for start in range(first, end, step)]

    def _chosen(self, job: Job) -> int:
        """How many of the job's images are in the subset."""
        first, end = np.searchsorted(self.plan.subset, (job.start, job.stop))
        return int(end - first)

    def at_once(self, pixels: int) -> int:
        """How many images make up to ``pixels`` pixels, at least one and at most a batch."""
        height, width = self.preprocess.input_size[1:]
        return max(1, min(self.plan.batch_size, self.plan.wider * pixels // (height * width)))

    def passes(self, job: Job) -> int:
        """How many images the job takes through each subject, a gradient counted as three: the time left follows
        from it.
        """
        if job.name == ATTACKED:
            return self._chosen(job) * (self.attacked_sets + GRADIENT_PASSES * self.gradients)
        return job.stop - job.start if job.condition is None else self._chosen(job)
