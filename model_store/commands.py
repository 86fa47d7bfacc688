"""The commands that pack, admit, and keep the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.terminal import BundlePath, show
from handlers.bundle import Bundle

if TYPE_CHECKING:
    from model_store.signing import Signer

commands = typer.Typer()


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
    from model_store.archive import package as run

    typer.echo(run(Bundle.open(bundle), out, name=name, version=version))


StoreUrl = Annotated[str, typer.Option("--store", help="The model store: a folder, or an fsspec URL such as s3://bucket/models.")]
Who = Annotated[str, typer.Option(help="Kept in the record.", envvar="USER")]
Why = Annotated[str, typer.Option(help="Kept in the record.")]
SignKey = Annotated[Path | None, typer.Option("--sign-key", help="Ed25519 private key, as `elude keygen` writes it.")]
VersionName = Annotated[str, typer.Argument(help="NAME/NUMBER, or NAME/STAGE.", metavar="VERSION")]


@commands.command()
def admit(
    bundle: BundlePath,
    store: StoreUrl,
    who: Who = "",
    why: Why = "release",
    archive: Annotated[Path | None, typer.Option(help="Its .mar; by default one is made.")] = None,
    sign_key: SignKey = None,
) -> None:
    """Put a bundle that passed the gate, with its archive, into the store. Exit code 1 if its verdict forbids it.

    Example: elude admit build/bundle --store models --why "release 3"
    """
    from model_store.store import Store

    admitted = Store(store).admit(bundle, archive, who=who or "unknown", why=why, signer=signer(sign_key), make_archive=True)
    show(f"Admitted to {store}", {"version": admitted.id, "bundle": admitted.bundle, "archive": str(admitted.archive)})


@commands.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="The private key to write; the public entry goes beside it.")],
    owner: Annotated[str, typer.Option(help="Whose key it is.")],
) -> None:
    """Make a key that signs admissions. It is encrypted if ELUDE_KEY_PASSPHRASE is set."""
    from model_store.signing import keygen as run

    typer.echo(json.dumps(run(path, owner=owner), indent=1))


stores = typer.Typer(help="Move versions between stages, list and check a store.", no_args_is_help=True)
commands.add_typer(stores, name="store")


@stores.command("list")
def store_list(store: StoreUrl) -> None:
    """All versions, with the stages they are in."""
    from model_store.store import Store

    show(store, {version.id: ", ".join(version.stages) or "–" for version in Store(store).list()})


@stores.command("promote")
def store_promote(
    version: VersionName, store: StoreUrl, stage: str = "production", who: Who = "", why: Why = "release", sign_key: SignKey = None
) -> None:
    """Put a version in a stage."""
    from model_store.store import Store

    moved = Store(store).promote(version, stage, who=who or "unknown", why=why, signer=signer(sign_key))
    show(f"Promoted in {store}", {moved.id: ", ".join(moved.stages)})


@stores.command("rollback")
def store_rollback(
    name: Annotated[str, typer.Argument(help="Of the series of versions.")],
    store: StoreUrl,
    stage: str = "production",
    who: Who = "",
    why: Why = "rollback",
    sign_key: SignKey = None,
) -> None:
    """Put back the version that was in the stage before."""
    from model_store.store import Store

    moved = Store(store).rollback(name, stage, who=who or "unknown", why=why, signer=signer(sign_key))
    show(f"Rolled back in {store}", {moved.id: ", ".join(moved.stages)})


@stores.command("verify")
def store_verify(store: StoreUrl) -> None:
    """Check the record and every byte of every version."""
    from model_store.store import Store

    show(f"{store}: every byte is as admitted", {version.id: ", ".join(version.stages) or "–" for version in Store(store).verify()})


@stores.command("fetch")
def store_fetch(version: VersionName, store: StoreUrl, out: Annotated[Path, typer.Option(help="A new folder.")]) -> None:
    """A verified copy of a version, from where it can be served."""
    from model_store.store import Store

    typer.echo(Store(store).fetch(version, out).id)


def signer(path: Path | None) -> Signer | None:
    from model_store.signing import load_signer

    return None if path is None else load_signer(path)
