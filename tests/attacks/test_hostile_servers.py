"""The client and a server that means harm: the key stays here, and no answer is endless."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from elude.handlers.errors import EludeError
from elude.handlers.torchserve import client as client_module
from elude.handlers.torchserve.client import Client


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives ``answer`` to every connection; its address, and what it was sent."""
    listening, heard = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(65536))
                try:
                    answer(connection)
                except OSError:  # the client has had enough
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", heard
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_is_not_sent_to_another_server(status: int) -> None:
    with server(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as (
        other,
        heard,
    ):
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {other}/stolen\r\nContent-Length: 0\r\n\r\n".encode()
        with server(lambda connection: connection.sendall(head)) as (url, asked), pytest.raises(EludeError):
            Client(url, "secret", retries=0).describe()
    assert b"secret" in asked[0]
    assert heard == []


def test_an_endless_answer_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER", 2**20)

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    with server(endless) as (url, _), pytest.raises(EludeError, match="more than"):
        Client(url, retries=0).describe()


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oh"])
def test_an_answer_that_drips_is_given_up(status: bytes) -> None:
    def dripping(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 100000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    begin = time.monotonic()
    with server(dripping) as (url, _), pytest.raises(EludeError, match="not complete"):
        Client(url, timeout=0.5, retries=0).describe()
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b"[" * 100_000, b'{"a": 1, "a": 2}', b"\xff"])
def test_an_answer_that_is_none_is_refused_in_words(body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with server(lambda connection: connection.sendall(head + body)) as (url, _), pytest.raises(EludeError):
        Client(url, retries=0).describe()


def test_half_an_answer_is_not_taken_for_the_whole() -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{"served": true}'
    with server(lambda connection: connection.sendall(half)) as (url, _), pytest.raises(EludeError):
        Client(url, retries=0).describe()
