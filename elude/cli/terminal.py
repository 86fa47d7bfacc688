"""What every command of the command line shares: arguments, tables on standard output, notes on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from elude.cli.faults import visible

_BORDERS = 7  # columns of a table beside its two cells
BundlePath = Annotated[Path, typer.Argument(help="A bundle: the folder that `elude export` writes.", metavar="BUNDLE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]

OutputNames = Annotated[
    str | None, typer.Option(help="Names of the model's outputs in order: a file with one per line, or 'imagenet-1k'.")
]


def show(title: str, rows: dict[str, Any], as_json: bool = False) -> None:
    """Print a short two-column table, or the same as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    cells = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in rows.items()}
    texts = {visible(name): visible(text) for name, text in cells.items()}
    heading = visible(title)
    console = Console()
    console.width = min(console.width, 140) if console.is_terminal else max(_width(texts), cell_len(heading))
    table = Table(title=escape(heading), title_justify="left", show_header=False, title_style="bold")
    table.min_width = min(cell_len(heading), console.width)  # else it would break over the width of the cells
    for _ in range(2):
        table.add_column(overflow="fold")  # a hash or a path that is cut short is of no use
    for name, text in texts.items():
        table.add_row(escape(name), escape(text))
    console.print(table)


def _width(texts: dict[str, str]) -> int:
    """Of a table in a file or a pipe: every cell on one line, so that a program or a person can copy it whole."""
    cells = [[cell_len(cell) for cell in column] for column in (texts.keys(), texts.values())]
    return max(80, sum(max(column, default=0) for column in cells) + _BORDERS)


def counted(count: int, noun: str) -> str:
    """``1 edit``, ``2 edits``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def warn(sentence: str) -> None:
    """Print a sentence that the user should read on standard error."""
    typer.echo(f"Note: {visible(sentence)}", err=True)
