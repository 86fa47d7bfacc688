"""Who does the jobs of an evaluation: this process, with helpers that corrupt images, or the machines of a Ray cluster.

All engines give identical results, because a job's answer depends on the job alone. Finished jobs
can be kept in a folder, so that an evaluation that was stopped resumes where it was.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.exporter import engines
from elude.exporter.engines import LOCAL, RAY
from elude.exporter.progress import StepProgress
from elude.handlers.files import replacing
from elude.quality.evaluation.observe import (
    Answer,
    Job,
    Work,
    corruption_task,
    run_job,
)
from elude.quality.suites.corruptions import VERSION
from elude.quality.suites.corruptions.parallel import corrupting


@dataclass(frozen=True)
class Cache:
    """A folder of finished jobs of one evaluation; a file appears whole or not at all."""

    folder: Path

    @classmethod
    def open(cls, root: str | Path, fingerprint: str) -> Cache:
        """The folder for this evaluation: other images, subjects or settings have another ``fingerprint``."""
        folder = Path(root) / hashlib.sha256(fingerprint.encode()).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def load(self, job: Job) -> Answer | None:
        path = self._path(job)
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}

    def save(self, job: Job, answer: Answer) -> None:
        with replacing(self._path(job)) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **answer)

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.name.replace('/', '+')}-{job.start}-{job.stop}.npz"


def run(
    work: Work,
    jobs: Sequence[Job],
    *,
    engine: str = LOCAL,
    workers: int = 0,
    cache: Cache | None = None,
    progress: StepProgress | None = None,
    stage: str = "images × passes",
) -> list[Answer]:
    """The answer of each job, in order.

    Args:
        work: what the jobs need.
        jobs: in order.
        engine: ``local``, or ``ray`` for the cluster that the environment names, or one of
            ``workers`` processes on this machine.
        workers: with ``local``, processes that corrupt images while this one runs the model, 0 for none.
        cache: of finished jobs.
        progress: called with (stage, done, in all), both in forward passes of one image, which take
            about the same time each.
        stage: what the progress is called.

    Raises:
        UsageError: an unknown engine, or one that is not installed.
    """
    engines.check(engine, workers)
    known = {job: answer for job in jobs if cache is not None and (answer := cache.load(job)) is not None}
    missing = [job for job in jobs if job not in known]
    total = sum(map(work.passes, jobs))
    done = total - sum(map(work.passes, missing))
    if progress is not None:
        progress(stage, done, total)
    stream = _with_ray(work, missing, workers) if engine == RAY else _here(work, missing, workers)
    for job, answer in zip(missing, stream, strict=True):
        known[job] = answer
        if cache is not None:
            cache.save(job, answer)
        done += work.passes(job)
        if progress is not None:
            progress(stage, done, total)
    return [known[job] for job in jobs]


def _here(work: Work, jobs: Sequence[Job], workers: int) -> Iterator[Answer]:
    with corrupting(workers if work.plan.corruptions else 0) as corrupter:
        pending: deque[tuple[Job, Callable[[], NDArray[np.uint8]] | None]] = deque()
        for job in jobs:
            task = corruption_task(work, job) if workers else None
            pending.append((job, None if task is None else corrupter(*task)))
            if len(pending) > workers:
                yield _finished(work, *pending.popleft())
        while pending:
            yield _finished(work, *pending.popleft())


def _finished(work: Work, job: Job, corrupted: Callable[[], NDArray[np.uint8]] | None) -> Answer:
    return run_job(work, job, None if corrupted is None else corrupted())


def _with_ray(work: Work, jobs: Sequence[Job], workers: int) -> Iterator[Answer]:
    yield from engines.run(_job_elsewhere, (work, _torch_threads()), jobs, engine=RAY, workers=workers or 2)


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def _job_elsewhere(shared: tuple[Work, int], job: Job) -> Answer:
    import torch

    work, threads = shared
    torch.set_num_threads(threads)  # sums over another number of threads round otherwise
    return run_job(work, job)


def fingerprint(work: Work, suite_sha256: str, subject: str, settings: dict[str, Any]) -> str:
    """What a finished job depends on."""
    plan = asdict(work.plan)
    subset = hashlib.sha256(work.plan.subset.tobytes()).hexdigest()
    return repr(
        (
            suite_sha256,
            VERSION,
            subject,
            sorted(work.subjects),
            sorted(work.ready),
            {**plan, "subset": subset},
            sorted(settings.items()),
        )
    )
