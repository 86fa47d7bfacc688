"""A worker that is killed, or stands still for ten seconds, under load: no wrong answer on either front end, and
callers that ask again are all answered.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _fronts import MODEL, Web, children, workers
from _serving import Ask, mixed, wrong

from elude.handlers.errors import EludeError, RequestError
from elude.handlers.service import Service
from elude.handlers.torchserve.client import Client, ServerError
from elude.handlers.torchserve.server import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]
SECONDS, PATIENCE, STILL = 25, 3, 10  # of the load, of one attempt, of a stopped worker


@pytest.fixture(scope="module")
def several(archive: Path) -> Iterator[Web]:
    web = Web(archive.parent / "b", workers=2)
    yield web
    web.stop()


@dataclass
class Callers:
    """Eight that ask without a pause, again where an attempt fails."""

    client: Client
    asks: list[Ask]
    answered: list[tuple[float, float]] = field(default_factory=list)  # when, and the seconds that it took
    failed_attempts: int = 0
    faults: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, first: int) -> None:
        number = first
        while not self.over.is_set():
            ask, begin = self.asks[number % len(self.asks)], time.monotonic()
            if fault := wrong(ask, *self._ask(ask)):
                self.faults.append(fault)
            now = time.monotonic()
            self.answered.append((now, now - begin))
            number += 8

    def _ask(self, ask: Ask) -> tuple[int, bytes]:
        for _ in range(12):
            try:
                return 200, self.client.send(f"/{ask.path}/{MODEL}", ask.body, ask.kind)
            except RequestError as error:
                return error.status, ask.answer  # refused: its status is compared, and the message by other tests
            except (ServerError, EludeError):
                self.failed_attempts += 1
                time.sleep(0.1)
        return 599, b""


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=lambda fault: signal.Signals(fault).name)
@pytest.mark.parametrize("name", ["server", "several"])
def test_a_worker_that_fails_costs_no_answer(
    request: pytest.FixtureRequest, local: Service, name: str, fault: int
) -> None:
    front: Server | Web = request.getfixturevalue(name)
    listed = workers if isinstance(front, Server) else children
    victim, *_ = before = listed(front)  # type: ignore[operator]
    assert len(before) == 2
    client = Client(
        f"http://127.0.0.1:{front.inference_port}", front.key("inference"), model=MODEL, timeout=PATIENCE, retries=0
    )
    callers = Callers(client, [ask for ask in mixed(local, 400, seed=3) if ask.status == 200])
    threads = [threading.Thread(target=callers.run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    begin = time.monotonic()
    os.kill(victim, fault)
    if fault == signal.SIGSTOP:
        time.sleep(STILL)
        if victim in listed(front):  # type: ignore[operator]
            os.kill(victim, signal.SIGCONT)
    back = ready_again(front, victim, fault, begin)
    time.sleep(max(0.0, begin + SECONDS - time.monotonic()))
    callers.over.set()
    for thread in threads:
        thread.join()
    slow = [when - begin for when, seconds in callers.answered if seconds > 1 and when > begin]
    print(
        f"| {'TorchServe' if isinstance(front, Server) else 'web'} | {signal.Signals(fault).name} | "
        f"{len(callers.answered)} | {len(callers.faults)} | {callers.failed_attempts} | "
        f"{max(seconds for _, seconds in callers.answered):.1f} | {max(slow, default=0):.1f} | {back:.1f} |"
    )
    assert callers.faults == []
    assert max(slow, default=0) < SECONDS - 2  # all is as before, at the end


def ready_again(front: Server | Web, victim: int, fault: int, begin: float) -> float:
    """Seconds until two workers are there, and none of them stands still."""
    while True:
        present = workers(front) if isinstance(front, Server) else children(front)
        if len(present) == 2 and (victim not in present or fault == signal.SIGSTOP):
            return time.monotonic() - begin
        assert time.monotonic() < begin + 60
        time.sleep(0.05)
