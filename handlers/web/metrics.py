"""Metrics of the web front end for Prometheus, named and labelled as on TorchServe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from elude.handlers.requests.calls import Answer

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where worker processes share their values; read by prometheus-client
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts requests and measures their time, by model, version, operation and status; never by sub-unit or image."""

    def __init__(self) -> None:
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
        self._reloads = Counter(
            "elude_reloads", "New versions, loaded or failed.", ("model_name", "outcome"), registry=self._registry
        )
        self._pending = Gauge(
            "elude_reload_failing",
            "1 while a newer version than the served one cannot be served.",
            ("model_name",),
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )

    def add(self, names: tuple[str, str], answer: Answer, seconds: float) -> None:
        """Note one answer of a model and version."""
        self._requests.labels(*names, answer.operation, str(answer.status)).inc()
        self._seconds.labels(*names, answer.operation).observe(seconds)

    def batches_of(self, model: str, version: str) -> Callable[[Sequence[Answer], float], None]:
        """A function that notes how long a batch of this version took, once per operation in it."""

        def add(answers: Sequence[Answer], seconds: float) -> None:
            for operation in {answer.operation for answer in answers}:
                self._batches.labels(model, version, operation).observe(seconds)

        return add

    def add_reload(self, model: str, outcome: str) -> None:
        """Note that a new version was loaded, or was not."""
        self._reloads.labels(model, outcome).inc()

    def set_pending(self, models: Iterable[str], problems: Mapping[str, str]) -> None:
        """Note which models have a newer version that cannot be served."""
        for model in models:
            self._pending.labels(model).set(model in problems)

    def exposition(self) -> tuple[bytes, str]:
        """What Prometheus scrapes, of all worker processes together, and its content type."""
        registry = self._registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
