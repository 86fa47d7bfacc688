"""Hot reload: a process looks whether its plan has changed, loads what is new beside what answers, and exchanges them.

Every request is answered by one version from beginning to end. One that cannot be loaded leaves the old one in place
and is reported: in the log, in the health, and in the metrics.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

from elude.handlers.web.models import Models, Table
from elude.handlers.web.plan import Plan

_RETRY_S = 30  # between two attempts to load what could not be loaded
logger = logging.getLogger("elude.web")


class Reloader:
    """Follows the plan in a file; begins with ``start``.

    Args:
        models: of this process.
        path: of the plan.
        every_s: seconds between two looks at it.
    """

    def __init__(self, models: Models, path: Path, every_s: float = 0.5) -> None:
        self._models, self._path, self._every = models, path, every_s
        self._stopped = threading.Event()
        self._seen = _stamp(path)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow the plan in a thread of its own; tables are exchanged on ``loop``."""
        threading.Thread(target=self._run, args=(loop,), name="elude-reload", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        again = 0.0
        while not self._stopped.wait(self._every):
            stamp = _stamp(self._path)
            if stamp == self._seen and not 0 < again <= time.monotonic():
                continue
            try:
                table, failed = self._models.successor(Plan.read(self._path))
            except (OSError, ValueError, KeyError, TypeError) as error:  # only its server writes it
                logger.error("the plan cannot be read", extra={"fields": {"event": "reload", "reason": str(error)}})
                continue
            self._seen, again = stamp, time.monotonic() + _RETRY_S if failed else 0.0
            self._note(table, failed)
            if not self._stopped.is_set():
                loop.call_soon_threadsafe(self._models.exchange, table)

    def _note(self, table: Table, failed: dict[str, str]) -> None:
        """Report what is new and what was not loaded."""
        before = {id(served) for served in self._models.table.all}
        for served in table.all:
            if id(served) not in before:
                model, version = served.names
                self._models.metrics.add_reload(model, "loaded")
                facts = {"event": "reload", "model": model, "version": version, "outcome": "loaded"}
                logger.info("a new version answers", extra={"fields": facts})
        for model, reason in failed.items():
            self._models.metrics.add_reload(model, "failed")
            facts = {"event": "reload", "model": model, "outcome": "failed", "reason": reason}
            logger.error("a new version was not loaded", extra={"fields": facts})
        self._models.metrics.set_pending(table.versions.keys() | table.problems.keys(), table.problems)


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ino
