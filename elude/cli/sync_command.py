"""The command that fills the folder of models of a TorchServe that elude does not start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elude.cli.options import StoreUrl, open_store


def store_sync(
    store: StoreUrl,
    out: Annotated[Path, typer.Option(help="The folder of models, for nothing else.")],
    stage: Annotated[
        list[str] | None, typer.Option(help="Versions in this stage, 'production' by default; may be repeated.")
    ] = None,
) -> None:
    """Make a TorchServe's folder of models hold exactly the archives of a stage, each checked; prints their paths.

    Example: elude store sync --store models --out /srv/models
    """
    from elude.model_store.sync import sync

    for path in sync(open_store(store), out, stage or ["production"]):
        typer.echo(path)
