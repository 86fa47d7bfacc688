"""Both front ends under load, and a worker that is killed: no wrong answer, no request that hurts another."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import numpy as np
import pytest
from _fronts import MODEL, Web, connect, workers
from _serving import Ask, load, mixed, wrong

from elude.handlers.errors import EludeError
from elude.handlers.service import Service
from elude.handlers.torchserve.client import ServerError
from elude.handlers.torchserve.server import Server

pytestmark = pytest.mark.server


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_mixed_load_gets_no_wrong_answer(front: Server | Web, local: Service, count: int) -> None:
    asks = mixed(local, count, seed=count)
    begin = time.monotonic()
    answers, seconds = load(asks, 32, lambda: connect(front).send)
    took = time.monotonic() - begin
    faults = [found for ask, (status, body) in zip(asks, answers, strict=True) if (found := wrong(ask, status, body))]
    same = sum(body == ask.answer for ask, (_, body) in zip(asks, answers, strict=True))
    statuses = Counter(status for status, _ in answers)
    print(
        f"{count} requests in {took:.1f} s, p50 {np.median(seconds) * 1000:.0f} ms, {same} bit-identical, "
        f"statuses {dict(statuses)}"
    )
    assert faults == []
    refused = [json.loads(body)["message"] for status, body in answers if 400 <= status < 500]
    assert len(refused) == round(count * 0.05)
    assert sum(n for status, n in statuses.items() if status >= 500) == 0


def test_the_comparison_sees_a_wrong_answer(local: Service) -> None:
    for ask in {ask.answer: ask for ask in mixed(local, 100)}.values():
        if ask.status != 200:
            assert wrong(ask, 200, ask.answer)
            assert wrong(ask, ask.status, ask.answer[:-5] + b'xx"}}')
        elif b'"steered"' in ask.answer:
            body = json.loads(ask.answer)
            body["max_output_change"] += 0.01
            assert ".max_output_change" in wrong(ask, 200, json.dumps(body).encode())


def test_a_worker_killed_under_load_costs_no_answer(server: Server, local: Service) -> None:
    asks = mixed(local, 1500, seed=7)
    before = workers(server)
    assert len(before) == 2
    times: dict[str, float] = {}

    def connect_client() -> object:
        client = server.client(timeout=5, retries=4)

        def send(ask: Ask) -> tuple[int, bytes]:
            if ask is asks[200]:
                times["killed"] = time.monotonic()
                os.kill(before[0], signal.SIGKILL)
            try:
                return 200, client.send(f"/{ask.path}/{MODEL}", ask.body, ask.kind)
            except ServerError as error:
                return error.status, str(error).encode()
            except EludeError as error:
                return getattr(error, "status", 599), b""

        return send

    answers, seconds = load(asks, 16, connect_client)  # type: ignore[arg-type]
    while len(set(workers(server)) - {before[0]}) < 2:
        assert time.monotonic() < times["killed"] + 60
        time.sleep(0.05)
    back = time.monotonic() - times["killed"]
    print(f"both workers ready {back:.1f} s after the kill; longest request {max(seconds):.1f} s")
    faults = []
    for ask, (status, body) in zip(asks, answers, strict=True):
        assert status == ask.status
        if status == 200 and (found := wrong(ask, status, body)):
            faults.append(found)
    assert faults == []
