"""A newcomer's first hours: only the wheel and the pages, every block of every page word for word, and its time.

    python -m benchmarks.newcomer --out build/newcomer [--environment FOLDER] [--photos FOLDER] [PAGE …]

Builds the wheel, installs it into a new virtual environment (or takes one), and runs each page's blocks in order, in
an empty folder or in the one that the quickstart leaves, as the page says. What was typed and what came back is in
OUT/PAGE.txt, to be read beside the page; the table of times is printed. Python blocks of a page share one interpreter,
and the value of a block's last line is shown as a prompt would. ``--photos`` has ``train`` and ``held-out``, for the
worked case.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from _shell import Shell, commands  # noqa: E402

PAGES = ("quickstart", "own-model", "photographs", "onnx", "own-data", "serving", "steering", "troubleshooting", "api",
         "method", "names", "atlas", "explorer", "quality", "gate", "store", "graph", "formats")  # fmt: skip
BLOCKS = re.compile(r"(<!-- skip: next[^\n]*-->\n)?```(sh|python)\n(.*?)```", re.DOTALL)
PREPARES = "shell.prepare()"
INTERPRETER = """
import ast, json, os, sys, traceback
space = {"__name__": "__main__"}
for line in sys.stdin:
    code, variables = json.loads(line)
    os.environ.update(variables)
    failed = False
    try:
        tree = ast.parse(code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "block", "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "block", "eval"), space)
            if value is not None:
                print(repr(value))
    except Exception:
        failed = True
        traceback.print_exc(file=sys.stdout)
    print(f"\\n__end__ {int(failed)}", flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One block of a page, and why the page skips it."""

    language: str
    code: str
    skipped: str


class Interpreter:
    """A Python of the newcomer's environment that keeps its variables from block to block."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), "-u", "-c", INTERPRETER],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, code: str) -> str:
        """Run a block; AssertionError with its output if it raises."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        variables = {name: value for name, value in os.environ.items() if name.startswith("ELUDE_")}
        self._process.stdin.write(json.dumps([code, variables]) + "\n")
        self._process.stdin.flush()
        printed = ""
        for line in self._process.stdout:
            if line.startswith("__end__"):
                assert line.split()[1] == "0", printed
                break
            printed += line
        return printed

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", default=PAGES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--environment", type=Path, help="a virtual environment with the wheel; made without it")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave each page's folder in OUT/PAGE")
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    environment = (settings.environment or install(settings.out)).absolute()
    prepared: Path | None = None
    print("| page | blocks | minutes:seconds | stopped at |\n|---|---|---|---|")
    for page in settings.pages:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        if PREPARES in text and prepared is None:
            prepared = settings.out / "after-the-quickstart"
            if not prepared.exists():
                follow("quickstart", environment, settings.out, keep=prepared)
        start, keep = prepared if PREPARES in text else None, settings.out / page if settings.keep else None
        count, seconds, fault = follow(page, environment, settings.out, start=start, photos=settings.photos, keep=keep)
        print(f"| {page} | {count} | {int(seconds // 60)}:{seconds % 60:02.0f} | {fault} |", flush=True)


def install(out: Path) -> Path:
    """A new virtual environment with the wheel of this checkout and the extras that the pages install."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out / "dist")], check=True, cwd=ROOT
    )
    (wheel,) = (out / "dist").glob("*.whl")
    environment = out / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, f"{wheel}[cpu,serve,web]"], check=True)
    return environment


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page that are typed, in order."""
    for skipped, language, code in BLOCKS.findall(text):
        yield Block(language, code, skipped.strip())


def follow(
    page: str,
    environment: Path,
    out: Path,
    start: Path | None = None,
    photos: Path | None = None,
    keep: Path | None = None,
) -> tuple[int, float, str]:
    """Follow a page. Returns how many blocks ran, the seconds they took, and what stopped it, if anything did."""
    shell = Shell(environment / "bin")
    interpreter: Interpreter | None = None
    count, began, fault = 0, time.monotonic(), ""
    with (out / f"{page}.txt").open("w", encoding="utf-8") as log:
        try:
            if start is not None:
                shutil.copytree(start, shell.folder, dirs_exist_ok=True)
            if photos is not None and page == "photographs":
                (shell.folder / "photos").symlink_to(photos.absolute())
            for block in blocks((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")):
                if block.skipped:
                    log.write(f"### {block.skipped}\n{block.code}\n")
                    continue
                at = time.monotonic()
                if block.language == "sh":
                    for command in commands(block.code):
                        log.write(f"$ {command}\n")
                        log.flush()
                        log.write(shell.run(command))
                else:
                    log.write(f">>> {block.code}")
                    interpreter = interpreter or Interpreter(environment / "bin" / "python", shell.folder)
                    log.write(interpreter.run(block.code))
                log.write(f"### {time.monotonic() - at:.1f} s\n\n")
                count += 1
        except AssertionError as error:
            log.write(f"### STOPPED\n{error}\n")
            fault = str(error).strip().splitlines()[-1][:120]
        finally:
            seconds = time.monotonic() - began
            if interpreter is not None:
                interpreter.close()
            if keep is not None:
                shutil.copytree(shell.folder, keep, ignore=shutil.ignore_patterns(".server-*"))
            shell.close()
    return count, seconds, fault


if __name__ == "__main__":
    main()
