"""The files of an unpacked archive, compared with their hashes again and again while they are served.

A model that is served for months outlives its disk's promises; a file that changes under it must
end the service, not its honesty.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from elude.handlers.errors import GateError


class Watch:
    """Runs ``check`` in the background and ends the process at the first damage, so that the server's health turns bad.

    Args:
        check: raises RuntimeError naming the file if something is damaged, GateError if the verdict has ended.
        folder: what is checked.
        every_s: seconds between two checks.
        busy: held while a batch is answered: the process ends between two batches.
        end: what ends the process.
    """

    def __init__(
        self,
        check: Callable[[Path], None],
        folder: Path,
        every_s: float,
        busy: threading.Lock,
        end: Callable[[], None] | None = None,
    ) -> None:
        self._check, self._folder, self._every, self._busy = check, folder, every_s, busy
        self._end = end or (lambda: os._exit(1))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="elude-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the background thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._check(self._folder)
            except (RuntimeError, OSError, GateError) as error:
                with self._busy:
                    sys.stdout.write(f"{error} This worker ends.\n")
                    sys.stdout.flush()
                    self._end()
                return
