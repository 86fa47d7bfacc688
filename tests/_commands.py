"""Commands run in this process as a shell would run them, and files damaged in the ways that files are."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

from elude.cli import main
from elude.cli.faults import DEFECT

LIMIT_S = 120  # four times what the longest takes on a busy machine
HUNG = 124  # as of timeout(1)


@dataclass(frozen=True)
class Outcome:
    """Exit code and standard error of a command."""

    code: int
    error: str

    def problem(self, allowed: tuple[int, ...] = (0, 1, 2, 3)) -> str:
        """What no user may see; empty if there is nothing."""
        if "Traceback" in self.error or DEFECT in " ".join(self.error.split()):
            return self.error[-1500:]
        return "" if self.code in allowed else f"exit code {self.code}: {self.error[-500:]}"


def run(*arguments: object) -> Outcome:
    """``elude ARGUMENTS`` in this process."""
    error = StringIO()
    command = ["elude", *map(str, arguments)]
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(LIMIT_S)
    try:
        with mock.patch.object(sys, "argv", command), redirect_stderr(error), redirect_stdout(StringIO()):
            main()
    except SystemExit as end:
        return Outcome(int(end.code or 0), error.getvalue())
    except Hang:
        return Outcome(HUNG, f"still running after {LIMIT_S} s")
    finally:
        signal.alarm(0)
    return Outcome(0, error.getvalue())


class Hang(BaseException):
    """A command takes too long."""


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def _json_damage(rng: random.Random, content: bytes) -> Iterator[bytes]:
    """The document with one value of another type, one key left out, one twice, one more, and a huge number."""
    try:
        whole = json.loads(content)
    except ValueError:
        return
    for value in (None, [], {}, "text", -1, 1e300, True, [[1]], {"a": {"b": None}}):
        yield json.dumps(value).encode()
        yield json.dumps(_with(rng, whole, value)).encode()
    if isinstance(whole, dict) and whole:
        key = rng.choice(list(whole))
        yield json.dumps({name: value for name, value in whole.items() if name != key}).encode()
        yield json.dumps(whole | {"surprise": 1}).encode()
        yield content.replace(b"{", b'{"' + key.encode() + b'": 1, ', 1)
    yield b"1" * 5000
    yield b'{"a": 1e999}'


def _with(rng: random.Random, document: Any, value: Any) -> Any:
    """A copy in which one value, however deep, is another."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = rng.choice(list(document))
        return document | {key: _with(rng, document[key], value)}
    if isinstance(document, list) and document and rng.random() < 0.9:
        at = rng.randrange(len(document))
        return [*document[:at], _with(rng, document[at], value), *document[at + 1 :]]
    return value


def damaged(rng: random.Random, content: bytes) -> Iterator[bytes]:
    """Contents that a file of that content might have instead."""
    yield from (b"", b"\xff\xfe\x00", b"[" * 100_000, b"a = " + b"[" * 5_000, b"a" + b".a" * 5_000 + b" = 1", b"{" * 50)
    if content:
        yield content[: len(content) // 2]
        yield content[: rng.randrange(len(content))]
        yield content + rng.randbytes(40)
        flipped = bytearray(content)
        for _ in range(5):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
    yield from _json_damage(rng, content)


def not_a_file(path: Path) -> Iterator[Callable[[], None]]:
    """Ways in which a path is not a file at all: each replaces it."""

    def clear() -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def make(put: Callable[[], object]) -> Callable[[], None]:
        def replace() -> None:
            clear()
            put()

        return replace

    yield make(lambda: None)
    yield make(path.mkdir)
    yield make(lambda: os.mkfifo(path))
    yield make(lambda: path.symlink_to("/dev/zero"))
    yield make(lambda: path.symlink_to(path))
