"""The commands that package and admit a bundle, and what else is made of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from elude.cli.options import SignKey, StoreUrl, Who, Why, open_store, signer
from elude.cli.store_commands import stores
from elude.cli.sync_command import store_sync
from elude.cli.terminal import BundlePath, show
from elude.handlers.bundle.bundle import Bundle

commands = typer.Typer()
stores.command("sync")(store_sync)
commands.add_typer(stores, name="store")


@commands.command()
def package(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(help="The .mar file, or a folder for it.")],
    name: Annotated[str, typer.Option(help="The model's name in URLs.")] = "elude",
    version: Annotated[str, typer.Option(help="Digits and dots.")] = "1.0",
) -> None:
    """Make the TorchServe archive of a bundle.

    Example: elude package build/bundle --out build/
    """
    from elude.model_store.archive import package as run

    typer.echo(run(Bundle.open(bundle), out, name=name, version=version))


@commands.command()
def admit(
    bundle: BundlePath,
    store: StoreUrl,
    who: Who = "",
    why: Why = "release",
    archive: Annotated[
        Path | None, typer.Option(help="Its .mar, if it has other settings; must be as 'elude package' makes it.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Of the archive in URLs; by default its number in the store, e.g. 3.0.")
    ] = None,
    sign_key: SignKey = None,
) -> None:
    """Put a bundle that passed the gate, with its archive, into the store. Exit code 1 if its verdict forbids it.

    Example: elude admit build/bundle --store models --why "release 3"
    """
    admitted = open_store(store, must_exist=False).admit(
        bundle,
        archive,
        who=who or "unknown",
        why=why,
        signer=signer(sign_key),
        make_archive=True,
        archive_version=version,
    )
    show(f"Admitted to {store}", {"version": admitted.id, "bundle": admitted.bundle, "archive": str(admitted.archive)})


@commands.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="The private key to write; the public entry goes beside it.")],
    owner: Annotated[str, typer.Option(help="Whose key it is.")],
) -> None:
    """Make a key that signs admissions. It is encrypted if ELUDE_KEY_PASSPHRASE is set."""
    from elude.model_store.signing import keygen as run

    typer.echo(json.dumps(run(path, owner=owner), indent=1))


@commands.command()
def card(bundle: BundlePath) -> None:
    """A model card's head for the Hugging Face Hub, with the measured dimensions as `model-index`.

    Example: elude card build/bundle > README.md
    """
    from elude.model_store.links import model_index

    typer.echo(model_index(Bundle.open(bundle)), nl=False)


@commands.command()
def provenance(bundle: BundlePath, sign_key: SignKey = None) -> None:
    """What a bundle was made of, as an in-toto statement with SLSA provenance; in a signed DSSE envelope with
    --sign-key.

    Example: elude provenance build/bundle --sign-key ada.pem > provenance.json
    """
    from elude.model_store.links import provenance as statement
    from elude.model_store.signing import envelope

    content, key = statement(Bundle.open(bundle)), signer(sign_key)
    typer.echo(json.dumps(content, indent=1) if key is None else envelope(content, key).decode(), nl=key is None)


@commands.command()
def mlflow(bundle: BundlePath) -> None:
    """Log a bundle's dimensions and reports to MLflow, to the tracking server that MLFLOW_TRACKING_URI names.

    Example: elude mlflow build/bundle
    """
    from elude.model_store.links import log_to_mlflow

    log_to_mlflow(Bundle.open(bundle))
