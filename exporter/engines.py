"""Who works through a list of jobs: processes of this machine, or the machines of a Ray cluster.

Answers come in the jobs' order.

An answer depends on its job alone, and arithmetic runs on one thread wherever it runs, so that all
engines give the same bytes (on processors of one kind: other kinds may round otherwise).
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from elude.handlers.errors import EludeError, UsageError

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
_AHEAD = 2  # jobs per worker that are made before the first of them is answered: bounds memory
Shared = TypeVar("Shared")
Job = TypeVar("Job")
Answer = TypeVar("Answer")


def check(engine: str, workers: int) -> None:
    """Refuse an engine that there is not, or a negative number of workers.

    Raises:
        UsageError: says which there are.
    """
    if engine not in ENGINES:
        raise UsageError(f"There is no engine {engine!r}.", f"Use one of {', '.join(ENGINES)}.")
    if workers < 0:
        raise UsageError(f"workers is {workers}.", "Give 0 or more.")


def run(
    work: Callable[[Shared, Job], Answer], shared: Shared, jobs: Iterable[Job], *, engine: str = LOCAL, workers: int = 0
) -> Iterator[Answer]:
    """Answer each job with ``work(shared, job)``, in order.

    Args:
        work: a function of a module.
        shared: what all jobs need; with ``local`` it travels with each job, with ``ray`` once to each machine.
        jobs: made one after another, only a few ahead of what is answered.
        engine: ``local``, or ``ray`` for the cluster that ``RAY_ADDRESS`` names, or else one on this machine.
        workers: processes; 0 is one per processor. Of a cluster that is there already, only how
            many jobs are made ahead.

    Raises:
        UsageError: an unknown engine, or Ray is not installed.
        EludeError: what a job raised.
    """
    check(engine, workers)
    count = workers or os.cpu_count() or 1
    if engine == RAY:
        yield from _with_ray(work, shared, jobs, count)
        return
    # spawned, as forking a process that has threads of torch can hang
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        try:
            yield from _in_order(lambda job: pool.submit(work, shared, job).result, jobs, _AHEAD * count)
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(submit: Callable[[Job], Callable[[], Answer]], jobs: Iterable[Job], ahead: int) -> Iterator[Answer]:
    """Submit jobs, at most ``ahead`` before the oldest is waited for."""
    pending: deque[Callable[[], Answer]] = deque()
    for job in jobs:
        pending.append(submit(job))
        if len(pending) >= ahead:
            yield pending.popleft()()
    while pending:
        yield pending.popleft()()


def _with_ray(
    work: Callable[[Shared, Job], Answer], shared: Shared, jobs: Iterable[Job], workers: int
) -> Iterator[Answer]:
    try:
        import ray
    except ImportError as error:
        raise UsageError("The engine ray is not installed.", "Run: pip install 'elude[ray]'") from error
    if not ray.is_initialized():
        options: dict[str, Any] = (
            {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        )
        ray.init(log_to_driver=False, **options)
    remote, everywhere = ray.remote(num_cpus=1)(work), ray.put(shared)

    def submit(job: Job) -> Callable[[], Answer]:
        reference = remote.remote(everywhere, job)

        def wait() -> Answer:
            try:
                answer: Answer = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, EludeError):
                    raise error.cause from error
                raise
            return answer

        return wait

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
    cluster = max(int(resources.get("CPU", 1)), workers)
    yield from _in_order(submit, jobs, _AHEAD * cluster)
