"""A folder beside a result, for work that should survive a kill or an error: ``OUT.partial``."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elude.handlers.errors import UsageError

_LOCK = "lock"


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """The folder ``OUT.partial``, made if it is not there. One process at a time may work in it.

    It is removed at the end. After a kill or an error it stays if anything was put into it, so that
    the next call can resume.

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
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is working on {out}.", "Wait for it, or choose another place."
            ) from error
        try:
            yield folder
        except BaseException:
            if all(path.name == _LOCK for path in folder.iterdir()):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
