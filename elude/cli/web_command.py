"""Serving with the web front end, as ``elude serve`` does."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from elude.cli.terminal import counted
from elude.handlers.errors import UsageError

if TYPE_CHECKING:
    from elude.handlers.web.plan import Plan
    from elude.model_store.store import Store


def serve_paths(
    words: Sequence[str], model: str, labels: Sequence[str], port: int, workers: int, store: Store | None
) -> None:
    """Serve bundles and archives until Ctrl-C; with a store, only archives that it admitted."""
    from elude.handlers.admission.requirements import Requirements

    _require_web()
    from elude.handlers.web.sources import plan_of

    required = Requirements.load() if store is None else store.requirements_for([Path(word) for word in words])
    _serve(partial(plan_of, words, requirements=required, model=model, labels=labels), port, workers, 0)


def serve_store(
    store: Store, names: Sequence[str], stages: Sequence[str], port: int, workers: int, reload_s: float
) -> None:
    """Serve what is in a stage of a store, until Ctrl-C; what is promoted meanwhile takes its place."""
    _require_web()
    from elude.model_store.serving import StoreSource

    _serve(StoreSource(store, names, stages), port, workers, reload_s)


def _require_web() -> None:
    try:
        import elude.handlers.web.run  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The web front end needs {error.name}, which is not installed.", "Run: pip install 'elude[web]'"
        ) from error


def _serve(source: Callable[[Path], Plan], port: int, workers: int, reload_s: float) -> None:
    """Serve; the key is ``ELUDE_TOKEN``, or a new one that is printed."""
    from elude.handlers.web.run import TOKEN, WebSettings, serve

    given = os.environ.get(TOKEN)
    token = given or secrets.token_urlsafe(32)

    def announce(address: str, plan: Plan) -> None:
        served = ", ".join(entry.name for entry in plan.versions)
        typer.echo(f"Serving {served} at {address} with {counted(workers, 'worker')}")
        key = "" if given else f" {TOKEN}={token}"
        typer.echo(f"export ELUDE_URL={address} ELUDE_MODEL={plan.models[0]}{key}")
        typer.echo("Try: elude call predict IMAGE    (with the line above; Ctrl-C stops)")

    serve(source, WebSettings(port=port, workers=workers, reload_s=reload_s), token, announce)
