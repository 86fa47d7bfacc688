"""Processes that listen on one address share its connections, and none waits for one that does not take its share."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from elude.handlers.web.sharing import Counts, FairListener


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Counts.make(tmp_path / "counts", 2)
    return tmp_path / "counts"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def test_a_connection_is_left_to_who_has_fewer_but_not_for_ever(path: Path, listener: socket.socket) -> None:
    one, other = Counts(path), Counts(path)
    with FairListener(listener, one) as fair, socket.create_connection(fair.getsockname()):
        one.add(1)
        begin = time.monotonic()
        with pytest.raises(BlockingIOError):
            fair.accept()
        while True:  # the other takes nothing
            try:
                fair.accept()[0].close()
                break
            except BlockingIOError:
                assert time.monotonic() < begin + 5
        assert time.monotonic() - begin > 0.05
        other.add(2)
        with socket.create_connection(fair.getsockname()):
            fair.accept()[0].close()  # as many as the other: at once
        assert one.another_has_fewer()
        other.add(1)
        assert not one.another_has_fewer()
        assert not other.another_has_fewer()


def test_the_place_of_a_process_that_has_ended_counts_for_nothing_and_is_taken_again(path: Path) -> None:
    own = Counts(path)
    own.add(3)
    code = f"from pathlib import Path; from elude.handlers.web.sharing import Counts; Counts(Path({str(path)!r}))"
    for _ in range(5):  # more than there are places
        subprocess.run([sys.executable, "-c", code], check=True)
    assert not own.another_has_fewer()


def test_nothing_waits_where_nobody_asks(path: Path, listener: socket.socket) -> None:
    with FairListener(listener, Counts(path)) as fair, pytest.raises(BlockingIOError):
        fair.accept()
