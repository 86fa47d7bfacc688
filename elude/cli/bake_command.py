"""The command ``bake``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elude.cli.terminal import BundlePath
from elude.handlers.errors import UsageError

commands = typer.Typer()


@commands.command()
def bake(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(help="The .onnx file to write; with --required-inputs, a folder.")],
    preset: Annotated[
        str | None, typer.Option(help="A preset of the bundle, folded into the weights; by default nothing is.")
    ] = None,
    required_inputs: Annotated[
        bool,
        typer.Option(
            "--required-inputs", help="Keep inspection and steering, with no optional input: a model for Triton."
        ),
    ] = False,
) -> None:
    """Write a plain graph, without inspection and steering, for quantisers, converters and other runtimes.

    Example: elude bake build/bundle --out plain.onnx

    Example: elude bake build/bundle --preset calmer --out calmer.onnx

    Example: elude bake build/bundle --required-inputs --out triton/bags
    """
    from elude.exporter.graph.bake import bake as run
    from elude.exporter.graph.triton import triton_model

    if required_inputs:
        if preset is not None:
            raise UsageError("--preset and --required-inputs exclude each other.", "Steer live with its edits.")
        typer.echo(triton_model(bundle, out))
    else:
        typer.echo(run(bundle, preset or (), out))
