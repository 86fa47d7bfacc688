"""Progress of what takes over a second: a bar on a terminal, lines in a log or a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from elude.exporter.progress import StepProgress


@contextmanager
def shown_progress(progress: StepProgress | bool) -> Iterator[StepProgress | None]:
    """Progress as asked for: none, a caller's function, a line in a notebook, or a bar on a terminal."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    elif "ipykernel" in sys.modules:
        yield _line
        print()
    else:
        with progress_bar() as bar:
            yield bar


def _line(step: str, done: int, total: int) -> None:
    print(f"\r{f'{step}: {done} of {total}':60}", end="", flush=True)


@contextmanager
def progress_bar(every: float = 60.0) -> Iterator[Callable[[str, int, int], None]]:
    """Progress on standard error: call it with (what, done, total).

    A bar on a terminal; elsewhere, such as in a log, a line every ``every`` seconds.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, Any] = {}
        last = time.monotonic()

        def step(what: str, done: int, total: int) -> None:
            nonlocal last
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)
            if not console.is_terminal and time.monotonic() - last >= every:
                last = time.monotonic()
                typer.echo(f"{what}: {done:,} of {total:,}", err=True)

        yield step
