"""The command that serves: archives, bundles, or what a store has promoted, by one of the two front ends."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elude.cli.options import open_store
from elude.handlers.errors import UsageError

if TYPE_CHECKING:
    from elude.handlers.torchserve.server import Server
    from elude.model_store.store import Store

YEAR = 365 * 24 * 60.0  # minutes
FRONTS = ("torchserve", "web")
commands = typer.Typer()


@commands.command()
def serve(
    served: Annotated[
        list[str],
        typer.Argument(
            help="Bundles and .mar files, each as PATH or NAME@VERSION=BUNDLE; or a store, and names of its models.",
            metavar="BUNDLE...|ARCHIVE...|STORE [MODEL...]",
        ),
    ],
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65533, help="For inference; TorchServe's management and metrics use the next two. 0: any."
        ),
    ] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Processes; on TorchServe, processes per model.")] = 1,
    token_minutes: Annotated[
        float, typer.Option(min=0.01, max=10 * YEAR, help="TorchServe: how long the keys are valid; a year by default.")
    ] = YEAR,
    store: Annotated[
        str | None, typer.Option(help="Serve only archives that this model store admitted; no other code runs.")
    ] = None,
    front: Annotated[
        str | None,
        typer.Option(help="torchserve or web. By default torchserve for archives, web for bundles and a store."),
    ] = None,
    model: Annotated[str, typer.Option(help="Name in URLs of a bundle that is given without one.")] = "elude",
    label: Annotated[
        list[str] | None, typer.Option(help="Web: NAME/LABEL=VERSION, another name of a version; may be repeated.")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="Of a store: production by default. Repeated, the first one answers where a URL names none."),
    ] = None,
    reload_s: Annotated[
        float, typer.Option(min=0, max=86_400, help="Web: seconds between two looks at the store; 0: never again.")
    ] = 10,
) -> None:
    """Serve archives, bundles, or the promoted versions of a store, on loopback until Ctrl-C.

    Examples: elude serve build/elude.mar --port 8080

    elude serve fashion@1.0=old fashion@2.0=new --label fashion/stable=1.0 --workers 2

    elude serve models fashion --workers 2
    """
    front, stages, labels = chosen_front(served, front, store), stage or ["production"], label or []
    admitting = None if store is None else open_store(store)
    if front == "web":
        from elude.cli.web_command import serve_paths, serve_store

        if is_store(served[0]):
            serve_store(open_store(served[0]), served[1:], stages, port, workers, reload_s)
        else:
            serve_paths(served, model, labels, port, workers, admitting)
        return
    if not is_store(served[0]):
        _serve_archives([Path(word) for word in served], port, workers, token_minutes, admitting)
        return
    from elude.model_store.sync import sync

    with tempfile.TemporaryDirectory(prefix="elude-promoted-") as folder:
        promoted = open_store(served[0])
        archives = sync(promoted, Path(folder, "models"), stages, served[1:])
        _serve_archives(archives, port, workers, token_minutes, promoted)


def is_store(word: str) -> bool:
    """Whether it names a store: an address, or a folder that is one."""
    return "://" in word or Path(word, "store.json").is_file()


def chosen_front(served: list[str], front: str | None, store: str | None) -> str:
    """The front end to use; UsageError if it cannot serve what was given."""
    archives = all(word.endswith(".mar") for word in served)
    front = front or ("torchserve" if archives else "web")
    if front not in FRONTS:
        raise UsageError(f"There is no front end {front!r}.", "Choose torchserve or web.")
    if is_store(served[0]):
        if store is not None:
            raise UsageError(f"{served[0]} is a store itself.", "Leave out --store.")
    elif any(map(is_store, served)):
        raise UsageError("A store stands first, and names of its models after it.", "elude serve STORE MODEL…")
    elif store is not None and not archives:
        raise UsageError(
            "--store is for archives.", "Admit the bundle and serve the store itself: elude serve STORE MODEL."
        )
    elif front == "torchserve" and not archives:
        raise UsageError("TorchServe serves archives, not bundles.", "Make one with: elude package BUNDLE --out build/")
    return front


def _serve_archives(archives: list[Path], port: int, workers: int, token_minutes: float, store: Store | None) -> None:
    """Serve with TorchServe; with a store, only what it admitted."""
    from elude.handlers.torchserve.server import Server, ServerSettings
    from elude.handlers.torchserve.server import serve as run

    admission = None if store is None else store.requirements_for(archives)
    settings = ServerSettings(workers=workers, token_minutes=token_minutes, admission=admission)
    run(Server(list(archives), settings, ports=(port, port + 1, port + 2) if port else None), announce)


def announce(server: Server) -> None:
    """Print what is served, until when its key is valid, and commands that work for it."""
    client, first = server.client(), server.archives[0]
    served = ", ".join(f"{archive.name} {archive.version}" for archive in server.archives)
    expires = f"{server.key_expires:%Y-%m-%d %H:%M} UTC"
    typer.echo(f"Serving {served} at {client.url}; the key is valid until {expires}; log: {server.log}")
    typer.echo(f"export ELUDE_URL={client.url} ELUDE_TOKEN={server.key('inference')} ELUDE_MODEL={first.name}")
    typer.echo("Try: elude call predict IMAGE    (with the line above; Ctrl-C stops)")
