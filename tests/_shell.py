"""A shell that runs the blocks of a document one after the other, and keeps the servers that they start until the
document ends.
"""

from __future__ import annotations

import functools
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
STAYS = ("elude serve", "elude explore", "python -m elude.handlers.web")
READY = ("Serving ", "Explore ", "Uvicorn running")
START, BLOCK, STOP = 120.0, 600.0, 20.0  # seconds
QUICKSTART = ROOT / "docs" / "quickstart.md"
BLOCKS = re.compile(r"(<!-- skip: next[^\n]*-->\n)?```sh\n(.*?)```", re.DOTALL)
ASKS_A_SERVER = ("elude serve", "elude call")


class Shell:
    """One bash in a new, empty folder.

    Commands that stay in the foreground run beside it, and the lines ``export NAME=…`` that they
    print take effect, as readers are told to paste them.
    """

    def __init__(self, binaries: Path | None = None) -> None:
        """Args: binaries: where ``elude`` and ``python`` are, by default this environment's."""
        first = binaries or Path(sys.executable).parent
        self._temporary = tempfile.TemporaryDirectory(prefix="elude-page-")
        self.folder = Path(self._temporary.name)
        environment = os.environ | {
            "PATH": f"{first}:{os.environ['PATH']}",
            "PYTHONPATH": "",
            "COLUMNS": "120",
            "USER": "reader",
        }
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._servers = 0

    def prepare(self) -> None:
        """Put into the folder what the quickstart leaves there, as the page tells its readers."""
        shutil.copytree(quickstart().name, self.folder, dirs_exist_ok=True)

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line)

    def run(self, block: str) -> str:
        """Run a block line by line (a line that ends in a backslash goes on);

        AssertionError with the output at the first that fails.
        """
        printed = ""
        for command in commands(block):
            stays = command.startswith(STAYS)
            printed += self._start(command) if stays else self._ask(command)
        return printed

    def _ask(self, command: str) -> str:
        assert self._bash.stdin is not None
        mark = f"__done_{time.monotonic_ns()}__"
        self._bash.stdin.write(f"{command}\necho {mark} $?\n")
        self._bash.stdin.flush()
        printed, end = "", time.monotonic() + BLOCK
        while True:
            try:
                line = self._lines.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"$ {command}\n{printed}\nhas not ended after {BLOCK:.0f} s") from None
            if line.startswith(mark):
                assert line.split()[1] == "0", f"$ {command}\n{printed}"
                return printed
            printed += line

    def _start(self, command: str) -> str:
        self._servers += 1
        log = self.folder / f".server-{self._servers}.log"
        self._ask(f"{command.partition(' #')[0]} > {shlex.quote(str(log))} 2>&1 &")
        end = time.monotonic() + START
        while time.monotonic() < end:
            said = log.read_text() if log.exists() else ""
            if any(word in said for word in READY):
                for line in said.splitlines():
                    if line.startswith("export "):
                        self._ask(line)
                        os.environ.update(pair.split("=", 1) for pair in shlex.split(line)[1:])  # for the page's Python
                return said
            time.sleep(0.2)
        raise AssertionError(f"$ {command}\n{log.read_text()}\nserves nothing after {START:.0f} s")

    def close(self) -> None:
        """End the shell and all that it started; remove its folder."""
        for name in ("ELUDE_URL", "ELUDE_TOKEN", "ELUDE_MODEL"):
            os.environ.pop(name, None)
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        group = os.getpgid(self._bash.pid)
        try:
            os.killpg(group, signal.SIGTERM)  # servers end what they have started themselves
            end = time.monotonic() + STOP
            while time.monotonic() < end:
                self._bash.poll()
                os.killpg(group, 0)
                time.sleep(0.05)
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended
        self._bash.wait()
        self._temporary.cleanup()


@functools.cache
def quickstart() -> tempfile.TemporaryDirectory[str]:
    """What the quickstart's own commands leave behind, its server left out; made once for all pages of this process."""
    home = tempfile.TemporaryDirectory(prefix="elude-quickstart-")
    shell = Shell()
    try:
        shell.run(f"cd {shlex.quote(home.name)}")
        for skipped, block in BLOCKS.findall(QUICKSTART.read_text(encoding="utf-8")):
            if not skipped:
                shell.run("\n".join(line for line in commands(block) if not line.startswith(ASKS_A_SERVER)))
    finally:
        shell.close()
    return home


def commands(block: str) -> list[str]:
    """The commands of a block: lines, joined where they end in a backslash; comments and empty lines are left out."""
    joined = block.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
