"""Work that is killed, -9, right before its n-th write to the file system."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

FORK = multiprocessing.get_context("fork")


def die_at(step: int, work: Callable[[], object]) -> None:
    """Run ``work`` in this process and have the system kill it, -9, right before its ``step``-th write to the file
    system.
    """
    count = 0

    def count_writes(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in ("os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.truncate"):
            return
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count_writes)
    work()
    os._exit(0)


def exit_code_of(step: int, work: Callable[[], object]) -> int | None:
    child = FORK.Process(target=die_at, args=(step, work))
    child.start()
    child.join(30)
    return child.exitcode
