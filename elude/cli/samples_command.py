"""The command ``samples``: real images to try the other commands with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command()
def samples(
    out: Annotated[Path, typer.Option(help="Folder for the images; must not exist, or be empty.")],
    per_class: Annotated[int, typer.Option(min=1, max=100, help="Images per class.")] = 10,
) -> None:
    """Write real images of the embedded evaluation set, one sub-folder per class: bag/bag-01.png, …

    Export never sees them. 28 x 28 pixels, Fashion-MNIST (MIT licence).

    Example: elude samples --out photos
    """
    from elude.cli.sample_images import write_samples

    count, classes = write_samples(out, per_class)
    typer.echo(f"{count} images of {classes} classes are in {out}.")
