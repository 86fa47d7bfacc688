"""The commands that build and check suites of evaluation images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elude.cli.terminal import progress_bar

commands = typer.Typer()
suite = typer.Typer(help="Build and check suites of evaluation images.", no_args_is_help=True)
commands.add_typer(suite, name="suite")


@suite.command("build")
def suite_build(
    images: Annotated[Path, typer.Argument(help="Labelled images: a folder or .tar with one sub-folder a class.")],
    out: Annotated[Path, typer.Option(help="Folder of the suite; a stopped build goes on.")],
    size: Annotated[int, typer.Option(help="Height and width of the images, in pixels.")] = 224,
    masks: Annotated[Path | None, typer.Option(help="Masks of the objects, laid out like the images.")] = None,
    dark_background: Annotated[bool, typer.Option(help="Objects lie on black: masks are made from that.")] = False,
) -> None:
    """Make corrupted, background, cue-conflict and shifted images from labelled ones.

    Example: elude suite build labelled/ --out suite && elude evaluate build/bundle --suite suite
    """
    from elude.quality.suites.suite_build import BuildSettings, build

    with progress_bar() as progress:
        built = build(
            images,
            out,
            masks=masks,
            settings=BuildSettings(size=size, dark_background=dark_background),
            progress=progress,
        )
    typer.echo(built)
