"""A disk on which the n-th write fails, and a command on it in a process of its own."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _commands import Outcome

EVENTS = ("os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.truncate")
SCRIPT = """
import json, os, sys
from pathlib import Path
from _commands import run
from _disks import READ_ONLY, Disk

disk = Disk()
with disk.failing(Path.cwd(), 1, READ_ONLY):
    outcome = run(*sys.argv[1:])
print(json.dumps([disk.count, outcome.code, outcome.error]), flush=True)
os._exit(0)
"""
READ_ONLY = errno.EROFS


class Disk:
    """Fails at the n-th write inside a folder, as seen by Python's audit events; harmless while ``step`` is 0."""

    def __init__(self) -> None:
        self.root, self.step, self.count, self.kind = "", 0, 0, 0
        sys.addaudithook(self._event)  # for ever: such a hook cannot be taken away

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.step or not self._writes(event, arguments):
            return
        paths = [os.fspath(value) for value in arguments[:2] if isinstance(value, str | os.PathLike)]
        if not any(str(Path(self.root, path)).startswith(f"{self.root}/") for path in paths):
            return
        self.count += 1
        if self.count == self.step:
            raise OSError(self.kind, os.strerror(self.kind), paths[0])

    @staticmethod
    def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
        if event != "open":
            return event in EVENTS
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    @contextmanager
    def failing(self, root: Path, step: int, kind: int) -> Iterator[None]:
        self.root, self.step, self.count, self.kind = str(root), step, 0, kind
        try:
            yield
        finally:
            self.step = 0


def on_read_only_disk(root: Path, *arguments: str) -> tuple[int, Outcome]:
    """A command in the folder ``root``, where nothing can be written: how often it tried to, and how it ended."""
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{tests.parent}:{tests}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=120)
    count, code, error = json.loads(done.stdout.splitlines()[-1])
    return count, Outcome(code, error)
