"""Runs in front of a worker's Python and lets only listed archives start one: an archive is code, and its own check
is part of it.

TorchServe starts a worker in the folder that it unpacked the archive to, with the program that
``--python`` names. ``write_guard`` makes that program. It runs before a single line of the archive,
so that an archive with a handler of someone else's is refused too, and it starts the worker with
``-B``: Python writes no compiled files into the folder, so that every file in it stays one that was
compared.

What it cannot do: TorchServe asks an archive's own files which interpreter runs and which program
is in front of it, and an archive that names others never meets the guard. ``elude serve`` and
``elude store sync`` hand TorchServe only archives whose files are ours.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

WORKER = "model_service_worker.py"  # TorchServe's program for workers; its others load no archive


def write_guard(folder: Path) -> Path:
    """Write the program for ``--python`` into ``folder``."""
    program = folder / "guarded-python"
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I {shlex.quote(__file__)} "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    return program


def check(folder: Path) -> None:
    """Refuse an unpacked archive that the requirements do not list.

    Raises:
        RuntimeError: a file of it is damaged; names it.
        GateError: it is not listed.
        UsageError: the requirements cannot be read.
    """
    from elude.handlers.admission.admission import require_archive
    from elude.handlers.admission.requirements import Requirements
    from elude.handlers.torchserve.handler import CONTENTS, check_contents

    check_contents(folder)
    require_archive((folder / CONTENTS).read_bytes(), Requirements.load())


def main(arguments: Sequence[str]) -> None:
    """Become the worker, unless its archive may not be loaded."""
    if any(Path(argument).name == WORKER for argument in arguments):
        sys.path.insert(
            0, str(Path(__file__).absolute().parents[3])
        )  # -I leaves out everything else that is not installed
        from elude.handlers.errors import EludeError

        try:
            check(Path.cwd())
        except (RuntimeError, EludeError) as error:
            sys.exit(f"Failed to load model: {type(error).__name__}: {error}")
    os.execv(sys.executable, [sys.executable, "-B", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
