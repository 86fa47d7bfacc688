"""Batches: calls that come while a forward pass runs share the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from elude.handlers.requests.calls import Answer, Call, Job
from elude.handlers.service import Service


@dataclass
class Moments:
    """When the parts of a call began and ended, in ns since the epoch; 0 for what did not happen."""

    asked: int = 0
    received: int = 0
    read: int = 0
    begun: int = 0
    ended: int = 0

    def parts(self) -> list[tuple[str, int, int]]:
        """Name, begin and end of each part."""
        ends = {"receive": self.received, "read": self.read, "queue": self.begun, "run": self.ended}
        begins = [self.asked, self.received, self.read, self.begun]
        return [(name, begin, end) for (name, end), begin in zip(ends.items(), begins, strict=True) if begin and end]


Batch = list[tuple[Job, "asyncio.Future[Answer]", Moments]]

_READERS = 2  # so that one large image does not hold up the others


class Places:
    """Places for calls that wait, shared by all that answer in a process.

    Args:
        most: calls that may wait; one more is refused with 503.
    """

    def __init__(self, most: int = 256) -> None:
        self._most, self._taken = most, 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """One place; HTTPException 503 if none is left."""
        if self._taken >= self._most:
            raise HTTPException(503, "Too many requests are waiting. Ask again in a moment.")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Batches:
    """Reads calls in two threads and answers them in another.

    Decoding an image therefore never holds up the forward pass of others, and neither thread is asked for the health.

    Args:
        service: answers.
        size: calls that may share a forward pass.
        places: for calls that wait.
        on_batch: gets the answers of each batch and its seconds.
    """

    def __init__(
        self,
        service: Service,
        size: int = 8,
        places: Places | None = None,
        on_batch: Callable[[Sequence[Answer], float], None] = lambda answers, seconds: None,
    ) -> None:
        self._service, self._size, self._on_batch = service, size, on_batch
        self._places = places or Places()
        self._readers = ThreadPoolExecutor(_READERS, "elude-read")
        self._runners = ThreadPoolExecutor(1, "elude-run")
        self._waiting: Batch = []
        self._running: asyncio.Task[None] | None = None

    async def answer(self, call: Call, moments: Moments | None = None) -> Answer:
        """The answer to one call; HTTPException 503 if too many wait already.

        Args:
            call: what is asked.
            moments: gets the times of its parts.
        """
        moments = moments or Moments()
        with self._places.take():
            loop = asyncio.get_running_loop()
            job = await loop.run_in_executor(self._readers, self._service.prepare, call)
            moments.read = time.time_ns()
            future: asyncio.Future[Answer] = loop.create_future()
            self._waiting.append((job, future, moments))
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._run())
            return await future

    async def _run(self) -> None:
        """Runs batches until nobody waits; a failure reaches each caller of its batch, and no other."""
        loop = asyncio.get_running_loop()
        while batch := self._waiting[: self._size]:
            del self._waiting[: self._size]
            begin, now = time.perf_counter(), time.time_ns()
            for _, _, moments in batch:
                moments.begun = now
            try:
                answers = await loop.run_in_executor(self._runners, self._service.run, [job for job, _, _ in batch])
            except Exception as error:  # noqa: BLE001  # belongs to the callers, who are other tasks
                _settle(batch, error)
            else:
                self._on_batch(answers, time.perf_counter() - begin)
                now = time.time_ns()
                for _, _, moments in batch:
                    moments.ended = now
                _settle(batch, answers)

    def close(self) -> None:
        """End the threads."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._runners.shutdown(wait=False, cancel_futures=True)


def _settle(batch: Batch, outcome: Sequence[Answer] | Exception) -> None:
    for place, (_, future, _) in enumerate(batch):
        if future.done():  # the caller has gone
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome[place])
