"""What an evaluation will take, before it starts: passes, an estimate of the time, and what a budget would save."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from elude.quality.evaluation.jobs import ATTACKED, CLEAN, Work

_TIMED = 8  # images per timed pass
_SUGGESTED = 200  # images, enough for intervals of a few points


@dataclass(frozen=True)
class Forecast:
    """Per model form, without the images that are made from masks while it runs.

    Attributes:
        clean: forward passes of validation images.
        corrupted: of corrupted ones.
        attacked: of adversarial ones.
        further: of the suite's other sets.
        gradients: gradient steps of the attacks.
        seconds: estimated for all model forms; decoding and forward passes were timed here, a gradient counts as
            three passes.
        budget: a smaller number of images for the costly passes, None if they are few already.
        seconds_with_budget: estimated with that.
    """

    clean: int
    corrupted: int
    attacked: int
    further: int
    gradients: int
    seconds: float
    budget: int | None
    seconds_with_budget: float

    def rows(self) -> dict[str, str]:
        """Human-readable."""
        parts = {"clean": self.clean, "corrupted": self.corrupted, "attacked": self.attacked, "other": self.further}
        total = f"{sum(parts.values()):,} ({', '.join(f'{n:,} {name}' for name, n in parts.items() if n)})"
        rows = {"forward passes per model": total}
        rows |= {"gradient steps": f"{self.gradients:,}"} if self.gradients else {}
        rows["estimated time"] = _duration(self.seconds)
        if self.budget is not None:
            rows[f"with --budget {self.budget}"] = _duration(self.seconds_with_budget)
        return rows


def forecast(work: Work) -> Forecast:
    """From the jobs and a few timed passes."""
    jobs = work.jobs()
    clean = sum(work.passes(job) for job in jobs if job.name == CLEAN)
    corrupted = sum(work.passes(job) for job in jobs if job.condition is not None)
    attacks = sum(work.passes(job) for job in jobs if job.name == ATTACKED)
    further = sum(work.passes(job) for job in work.ready_jobs())
    subset = len(work.plan.subset)
    images = subset if attacks else 0
    per_pass, per_image = _timed(work)
    costly = (corrupted + attacks) * per_pass
    rest = (clean + further) * (per_pass + per_image)
    budget = _SUGGESTED if subset > _SUGGESTED and costly > 0 else None
    share = (budget or subset) / max(subset, 1)
    gradients = images * work.gradients
    return Forecast(
        clean, corrupted, work.attacked_sets * images, further, gradients, rest + costly, budget, rest + costly * share
    )


def _timed(work: Work) -> tuple[float, float]:
    """Seconds that all model forms take for one image, and that decoding one takes."""
    count = min(_TIMED, len(work.images))
    start = time.perf_counter()
    batch = work.images.batch(work.preprocess, work.classes, 0, count)
    per_image = (time.perf_counter() - start) / count
    pixels = np.zeros((count, *work.preprocess.input_size), np.float32) + np.float32(batch.pixels.mean() / 255)
    total = 0.0
    for subject in work.subjects.values():
        subject.outputs(pixels[:1])  # the first pass also allocates
        start = time.perf_counter()
        subject.outputs(pixels)
        total += (time.perf_counter() - start) / count
    return total, per_image


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
