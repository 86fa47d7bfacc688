"""Counts and times of answers, gathered while serving and told to the server's metrics once a second from the
background.

TorchServe takes metrics as lines of a worker's output; written one by one before each answer, they
would cost as much as a small model. Labels are operation and status, never a sub-unit or an image.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol


class Metric(Protocol):
    """A metric of TorchServe's cache."""

    def add_or_update(self, value: float, dimension_values: list[str]) -> None: ...


class Reports:
    """Gathers what was answered.

    Args:
        counter: requests by model, version, operation, status; None where the server's metrics file does not name it.
        histogram: seconds of a batch by model, version, operation; None likewise.
        names: model and version.
        every_s: seconds between two tellings.
    """

    def __init__(
        self, counter: Metric | None, histogram: Metric | None, names: Sequence[str], every_s: float = 1
    ) -> None:
        self._counter, self._histogram, self._names = counter, histogram, list(names)
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._times: list[tuple[str, float]] = []
        self._every, self._stopped = every_s, threading.Event()
        self._thread = threading.Thread(target=self._run, name="elude-reports", daemon=True)
        if counter or histogram:
            self._thread.start()

    def add(self, answers: Sequence[Any], seconds: float) -> None:
        """Note the answers of a batch and how long it took."""
        if not self._thread.is_alive():
            return
        with self._lock:
            for answer in answers:
                self._counts[answer.operation, str(answer.status)] += 1
            self._times += [(operation, seconds) for operation in {answer.operation for answer in answers}]

    def flush(self) -> None:
        """Tell what was gathered since the last time."""
        with self._lock:
            counts, times = self._counts, self._times
            self._counts, self._times = Counter(), []
        if self._counter:
            for kind, count in counts.items():
                self._counter.add_or_update(count, [*self._names, *kind])
        if self._histogram:
            for operation, seconds in times:
                self._histogram.add_or_update(round(seconds, 6), [*self._names, operation])

    def stop(self) -> None:
        """End the background thread and tell the rest."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self.flush()
