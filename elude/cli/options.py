"""What the commands of the store share. It is opened with what ``ELUDE_ADMISSION`` requires."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elude.handlers.errors import UsageError

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


def open_store(url: str, *, must_exist: bool = True) -> Store:
    """The store of an option.

    Raises:
        UsageError: there is none, and it must exist, or it would end with this command.
    """
    from elude.handlers.admission.requirements import Requirements
    from elude.model_store.store import Store

    if url.startswith("memory:"):
        raise UsageError(f"{url} ends with this command.", "Name a folder, or a bucket such as s3://bucket/models.")
    return Store(url, Requirements.load(), must_exist=must_exist)


def signer(path: Path | None) -> Signer | None:
    """The key of an option."""
    from elude.model_store.signing import load_signer

    return None if path is None else load_signer(path)
