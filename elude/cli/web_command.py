"""Serving a bundle with the web front end, as ``elude serve BUNDLE`` does."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import typer

from elude.handlers.errors import UsageError


def serve_bundle(bundle: Path, model: str, port: int, workers: int) -> None:
    """Serve until Ctrl-C; the key is ``ELUDE_TOKEN``, or a new one that is printed."""
    try:
        from elude.handlers.web.run import TOKEN, WebSettings, checked, serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The web front end needs {error.name}, which is not installed.", "Run: pip install 'elude[web]'"
        ) from error
    given = os.environ.get(TOKEN)
    token = given or secrets.token_urlsafe(32)

    def announce(address: str) -> None:
        typer.echo(f"Serving {model} at {address} with {workers} worker{'s' if workers > 1 else ''}")
        key = "" if given else f" {TOKEN}={token}"
        typer.echo(f"export ELUDE_URL={address} ELUDE_MODEL={model}{key}")
        typer.echo("Try: elude call predict IMAGE    (with the line above; Ctrl-C stops)")

    serve(checked(WebSettings(str(bundle), model, port=port, workers=workers)), token, announce)
