"""A folder beside a result, for work that should outlive a kill: ``OUT.partial``."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elude.handlers.errors import EludeError, UsageError


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """The folder ``OUT.partial``, made if it is not there. One process at a time may work in it.

    It is removed at the end, and also after an ``EludeError``, which would come again. It stays
    when the process is killed or interrupted, and after errors from outside, as of a full disk.

    Raises:
        UsageError: another process works in it, or something else has its name.
    """
    folder = out.with_name(f"{out.name}.partial")
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"{folder} is in the way: the work on {out} is kept there while it lasts.",
            "Move it or choose another place.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is working on {out}.", "Wait for it, or choose another place."
            ) from error
        try:
            yield folder
        except EludeError:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
