"""What is told to the metrics is what was answered, once, summed by operation and status."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from elude.handlers.metrics import Reports
from elude.handlers.requests.calls import Answer


@dataclass
class Metric:
    told: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.told.append((value, tuple(dimension_values)))


def test_counts_are_summed_and_times_told_one_by_one() -> None:
    counter, histogram = Metric(), Metric()
    reports = Reports(counter, histogram, ["m", "1"], every_s=60)
    for _ in range(3):
        reports.add([Answer(200, b"", "predict"), Answer(400, b"", "predict"), Answer(200, b"", "steer")], 0.25)
    reports.stop()
    labels = {("m", "1", "predict", "200"), ("m", "1", "predict", "400"), ("m", "1", "steer", "200")}
    assert sorted(counter.told) == sorted((3, label) for label in labels)
    assert sorted(histogram.told) == sorted([(0.25, ("m", "1", "predict")), (0.25, ("m", "1", "steer"))] * 3)
    reports.flush()
    assert len(counter.told) == 3


def test_it_tells_in_the_background() -> None:
    counter = Metric()
    reports = Reports(counter, None, ["m", "1"], every_s=0.01)
    reports.add([Answer(200, b"", "predict")], 0.1)
    deadline = time.monotonic() + 5
    while not counter.told and time.monotonic() < deadline:
        time.sleep(0.01)
    reports.stop()
    assert counter.told == [(1, ("m", "1", "predict", "200"))]


def test_a_server_without_our_metrics_is_told_nothing() -> None:
    reports = Reports(None, None, ["m", "1"])
    reports.add([Answer(200, b"", "predict")], 0.1)
    reports.stop()
