"""Who works through a list of jobs: processes of this machine, or the machines of a Ray cluster.

Answers come in the jobs' order.

An answer depends on its job alone, and arithmetic runs on one thread wherever it runs, so that all
engines give the same bytes (on processors of one kind: other kinds may round otherwise).

What all jobs need is put once on each machine: processes of this machine map the files of its
arrays, those of a cluster read Ray's object store. Jobs carry their own arguments only.
"""

from __future__ import annotations

import io
import mmap
import multiprocessing
import os
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from elude.handlers.errors import EludeError, UsageError

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
_LARGE = 2**20  # bytes from which on an array is put into a file for other processes
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
        shared: what all jobs need; put once on each machine, its large arrays read-only.
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
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="elude-") as folder:
        packed = _packed(shared, Path(folder))
        with ProcessPoolExecutor(count, spawn, initializer=_unpack, initargs=(packed,)) as pool:
            try:
                yield from _in_order(lambda job: pool.submit(_with_shared, work, job).result, jobs, _AHEAD * count)
            finally:
                pool.shutdown(cancel_futures=True)


class _Pickler(pickle.Pickler):
    """Pickles arrays as the files that they are mapped from; large ones in memory are written to files first."""

    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.folder = folder

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or value.nbytes < _LARGE or value.dtype.hasobject:
            return NotImplemented
        source: Any = value.base
        if isinstance(value, np.memmap) and isinstance(source, mmap.mmap):  # all of a map, not a view of it
            order = "C" if value.flags.c_contiguous else "F"
            place = str(value.filename), value.dtype, "r", value.offset, value.shape, order
            return np.memmap, place
        path = self.folder / f"{len(os.listdir(self.folder))}.npy"
        np.save(path, value)
        return partial(np.load, mmap_mode="r"), (path,)


def _packed(shared: object, folder: Path) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, folder).dump(shared)
    return buffer.getvalue()


_shared: list[Any] = []  # of a worker process: what its pool put there


def _unpack(packed: bytes) -> None:
    _shared[:] = [pickle.loads(packed)]


def _with_shared(work: Callable[[Any, Job], Answer], job: Job) -> Answer:
    return work(_shared[0], job)


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
        options: dict[str, Any] = {}
        if not os.environ.get("RAY_ADDRESS"):  # "local": not a cluster that somebody else runs on this machine
            options = {"address": "local", "num_cpus": workers, "include_dashboard": False}
        ray.init(log_to_driver=False, **options)
    # else each process would have a copy of a mapped array of its own, not the object store's
    ray.util.register_serializer(np.memmap, serializer=np.asarray, deserializer=np.asarray)
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
