"""The command line: joins the commands of this folder. Composes the packages and decides nothing itself."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.markup import escape

from elude import __version__
from elude.cli import (
    atlas_commands,
    bake_command,
    demo,
    doctor_command,
    export_commands,
    hub_command,
    naming_commands,
    package_commands,
    preset_commands,
    quality_commands,
    samples_command,
    serve_command,
    serving_commands,
    suite_commands,
)
from elude.cli.faults import DEFECT, NOT_EVALUATED, one_line, outside_cause

# The order in which one needs them; `elude --help` shows them so.
GROUPS = {
    "Start here": ("demo", "samples", "doctor"),
    "Make": ("export", "name", "atlas", "measure", "verify", "graph", "bake"),
    "Look and steer": ("explore", "call", "preset", "tune"),
    "Judge": ("suite", "evaluate", "policy", "gate", "report", "compare", "score"),
    "Release": ("package", "admit", "store", "serve", "keygen", "provenance"),
    "Publish": ("card", "push", "mlflow"),
}


class _Grouped(typer.core.TyperGroup):
    """The commands by group."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = [name for group in GROUPS.values() for name in group]
        return sorted(self.commands, key=lambda name: names.index(name) if name in names else len(names))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        for title, names in GROUPS.items():
            if command is not None and cmd_name in names:
                vars(command)["rich_help_panel"] = title
        return command


app = typer.Typer(
    cls=_Grouped,
    help="Export a pretrained image model that explains itself, steer it, and gate its release on quality.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for group in (
    export_commands,
    bake_command,
    naming_commands,
    atlas_commands,
    quality_commands,
    suite_commands,
    preset_commands,
    package_commands,
    hub_command,
    serve_command,
    serving_commands,
    demo,
    samples_command,
    doctor_command,
):
    app.add_typer(group.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"elude {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: what went wrong becomes one line on standard error, and an exit code that says whose fault it is."""
    try:
        app()
    except Exception as error:  # noqa: BLE001  # the last place: nothing may end as "a check failed" by accident
        fault = outside_cause(error)
        if fault is None:
            traceback.print_exception(error)
            _print_error(DEFECT)
            sys.exit(NOT_EVALUATED)
        _print_error(one_line(fault))
        sys.exit(fault.exit_code)


def _print_error(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(text)}")
