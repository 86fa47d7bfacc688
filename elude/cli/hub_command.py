"""The command ``push``."""

from __future__ import annotations

from typing import Annotated

import typer

from elude.cli.terminal import BundlePath

commands = typer.Typer()


@commands.command()
def push(
    bundle: BundlePath,
    address: Annotated[str, typer.Argument(help="hf://OWNER/NAME, or with @BRANCH.", metavar="HF://OWNER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is new.")] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "",
) -> None:
    """Put a bundle on the Hugging Face Hub, with a model card; load it with elude.load("hf://OWNER/NAME").

    Log in with 'hf auth login', or set HF_TOKEN. HF_ENDPOINT names another Hub.

    Example: elude push build/bundle hf://ada/bags
    """
    from elude.push_to_hub import push as run

    typer.echo(run(bundle, address, private=private, message=message))
