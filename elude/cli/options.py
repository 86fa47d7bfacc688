"""What the commands of the store share. It is opened with what ``ELUDE_ADMISSION`` requires."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from elude.model_store.signing import Signer
    from elude.model_store.store import Store

StoreUrl = Annotated[
    str, typer.Option("--store", help="The model store: a folder, or an fsspec URL such as s3://bucket/models.")
]
Who = Annotated[str, typer.Option(help="Kept in the record.", envvar="USER")]
Why = Annotated[str, typer.Option(help="Kept in the record.")]
SignKey = Annotated[Path | None, typer.Option("--sign-key", help="Ed25519 private key, as `elude keygen` writes it.")]
VersionName = Annotated[str, typer.Argument(help="NAME/NUMBER, or NAME/STAGE.", metavar="VERSION")]


def open_store(url: str) -> Store:
    """The store of an option."""
    from elude.handlers.admission.requirements import Requirements
    from elude.model_store.store import Store

    return Store(url, Requirements.load())


def signer(path: Path | None) -> Signer | None:
    """The key of an option."""
    from elude.model_store.signing import load_signer

    return None if path is None else load_signer(path)
