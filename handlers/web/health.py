"""The health of a served bundle, known at any moment without reading it: files are compared in the background."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError
from elude.handlers.service import Service


class Health:
    """Says whether a service may go on answering.

    Args:
        service: that serves.
        recheck_s: seconds between two comparisons of all files with their hashes; 0 for never.
    """

    def __init__(self, service: Service, recheck_s: float) -> None:
        self._service, self._root = service, Path(service.bundle.root)
        self._files = _state(self._root)
        self._damage = ""
        self._thread = ThreadPoolExecutor(1, "elude-health")
        self._check: Future[None] | None = None
        self._every, self._stopped = recheck_s, threading.Event()
        if recheck_s:
            threading.Thread(target=self._run, name="elude-recheck", daemon=True).start()

    def problem(self) -> str:
        """What is wrong, empty if nothing is; looks at sizes and times of files, and reads none."""
        try:
            self._service.admission.require_current()
        except GateError as error:
            return str(error)
        now = _state(self._root)
        changed = next((name for name in sorted({*self._files, *now}) if self._files.get(name) != now.get(name)), None)
        if changed is None:
            return self._damage
        self._verify_soon()
        return self._damage or f"{changed} was changed and is being compared with its hash."

    def close(self) -> None:
        """End the background's threads."""
        self._stopped.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _verify_soon(self) -> None:
        if self._check is None or self._check.done():
            self._check = self._thread.submit(self._verify)

    def _verify(self) -> None:
        state = _state(self._root)
        try:
            Bundle.open(self._root, verify=True)
        except BundleError as error:
            self._damage = str(error)
        else:
            self._damage, self._files = "", state

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self._verify_soon()


def _state(root: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time of change and inode of each file."""
    state = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            try:
                status = path.stat()
            except OSError:  # it went meanwhile
                continue
            state[path.relative_to(root).as_posix()] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return state
