"""Metrics of the web front end for Prometheus, named and labelled as on TorchServe."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from elude.handlers.requests.calls import Answer

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where worker processes share their values; read by prometheus-client
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts requests and measures their time, by model, version, operation and status; never by sub-unit or image."""

    def __init__(self, model: str, version: str) -> None:
        self._names = (model, version)
        self._registry = CollectorRegistry()
        labels = ("model_name", "model_version", "operation")
        self._requests = Counter("elude_requests", "Requests by status.", (*labels, "status"), registry=self._registry)
        self._seconds = Histogram(
            "elude_request_seconds",
            "From the last byte of a request to its answer.",
            labels,
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._batches = Histogram(
            "elude_batch_seconds",
            "Forward passes and their answers.",
            labels,
            registry=self._registry,
            buckets=_SECONDS,
        )

    def add(self, answer: Answer, seconds: float) -> None:
        """Note one answer."""
        self._requests.labels(*self._names, answer.operation, str(answer.status)).inc()
        self._seconds.labels(*self._names, answer.operation).observe(seconds)

    def add_batch(self, answers: Sequence[Answer], seconds: float) -> None:
        """Note how long a batch took, once per operation in it."""
        for operation in {answer.operation for answer in answers}:
            self._batches.labels(*self._names, operation).observe(seconds)

    def exposition(self) -> tuple[bytes, str]:
        """What Prometheus scrapes, of all worker processes together, and its content type."""
        registry = self._registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
