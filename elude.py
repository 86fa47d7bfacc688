"""elude: the command line, and the public API loaded on demand. Composes the rooms and decides nothing itself.

>>> import elude
>>> bundle = elude.export("embedded", "images.tar", out="bundle")      # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from handlers.errors import EludeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from handlers.bundle import Bundle

__version__ = "0.1.0"

_PUBLIC = {
    "export": "exporter.pipeline",
    "ExportSettings": "exporter.pipeline",
    "load_model": "exporter.load",
    "graft": "exporter.rewrite",
    "explicit": "exporter.rewrite",
    "Bundle": "handlers.bundle",
    "Edit": "handlers.edits",
    "GraphSession": "handlers.session",
    "evaluate": "quality.evaluate",
    "judge": "quality.gate",
    "quba_score": "quality.score",
    "package": "model_store.archive",
    "Store": "model_store.store",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its room when it is first used, so that ``import elude`` stays light."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'elude' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


app = typer.Typer(
    help="Export a pretrained image model that explains itself, steer it, and gate its release on quality.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
BundlePath = Annotated[Path, typer.Argument(help="A bundle: the folder that `elude export` writes.", metavar="BUNDLE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]


def show(title: str, rows: dict[str, Any], as_json: bool = False) -> None:
    """Print a short two-column table, or the same as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    for name, value in rows.items():
        table.add_row(name, value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else str(value))
    Console(width=min(Console().width, 140)).print(table)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on standard error, silent when that is not a terminal: call it with (what, done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield step


def open_bundle(path: Path) -> Bundle:
    from handlers.bundle import Bundle

    return Bundle.open(path)
