"""The commands that serve an archive and ask a server."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from handlers.edit_text import parse_edit
from handlers.errors import UsageError

commands = typer.Typer()


@commands.command()
def serve(
    archives: Annotated[list[Path], typer.Argument(help="One or several .mar files.", metavar="ARCHIVE...")],
    port: Annotated[int, typer.Option(help="Of inference; management and metrics take the next two.")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes per model.")] = 1,
    store: Annotated[str | None, typer.Option(help="Serve only what this model store admitted; no other code runs.")] = None,
) -> None:
    """Serve archives with TorchServe on loopback until Ctrl-C.

    Example: elude serve build/elude.mar --port 8080
    """
    from handlers.torchserve.server import Server, ServerSettings
    from handlers.torchserve.server import serve as run

    def ready(server: Server) -> None:
        client = server.client()
        typer.echo(f"Serving {', '.join(archive.name for archive in server.archives)} at {client.url}; log: {server.log}")
        typer.echo(f"export ELUDE_URL={client.url} ELUDE_TOKEN={server.key('inference')}")
        typer.echo("Try: elude call inspect IMAGE    (Ctrl-C stops)")

    admission = None
    if store is not None:
        from handlers.requirements import Requirements
        from model_store.store import Store

        admission = Store(store, Requirements.load()).requirements_for(archives)
    run(Server(list(archives), ServerSettings(workers=workers, admission=admission), ports=(port, port + 1, port + 2)), ready)


@commands.command()
def explore(
    target: Annotated[str, typer.Argument(help="A bundle, or the address of a running server.", metavar="URL|BUNDLE")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for any free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on; whoever reaches it can ask the model.")] = "127.0.0.1",
    token: Annotated[str | None, typer.Option(envvar="ELUDE_TOKEN", help="The server's inference key; the page never sees it.")] = None,
    model: Annotated[str, typer.Option(help="The model's name in the server's URLs.")] = "elude",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Look into a model in the browser: what it sees, which sub-units count, and what happens when they are steered.

    Example: elude explore BUNDLE
    """
    try:
        from handlers.explorer.app import explore as run
        from handlers.explorer.backends import Own, Remote
    except ModuleNotFoundError as error:
        raise UsageError(f"The explorer needs {error.name}, which is not installed.", "Run: pip install 'elude[web]'") from error
    from handlers.service import Service
    from handlers.settings import read_settings
    from handlers.torchserve.client import Client

    def ready(address: str) -> None:
        typer.echo(f"Explore {target} at {address}    (Ctrl-C stops)")
        if open_page:
            webbrowser.open(address)

    remote = target.startswith(("http://", "https://"))
    backend = Remote(Client(target, token, model=model)) if remote else Own(Service.open(target, read_settings({}), model=model))
    run(backend, host, port, ready)


@commands.command()
def call(
    operation: Annotated[str, typer.Argument(help="predict, inspect, steer, feature, search or describe.")],
    target: Annotated[str, typer.Argument(help="An image file; an identifier for 'feature'; words for 'search'.")] = "",
    edit: Annotated[
        list[str] | None, typer.Option(help="For 'steer': ID=ACTION[:VALUE][@PATCHES], e.g. 'blocks.5.mlp.fc2/u3.s1=scale:4'.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="For 'inspect'.")] = 5,
    url: Annotated[str, typer.Option(envvar="ELUDE_URL")] = "http://127.0.0.1:8080",
    token: Annotated[str | None, typer.Option(envvar="ELUDE_TOKEN", help="The server's inference key.")] = None,
    model: Annotated[str, typer.Option(help="The model's name in URLs.")] = "elude",
) -> None:
    """Ask a server; prints its JSON answer.

    Example: elude call steer bag.png --edit 'blocks.5.mlp.fc2/u3.s1=scale:4@10'
    """
    from handlers.torchserve.client import Client

    client = Client(url, token, model=model)
    answers: dict[str, Callable[[], Any]] = {
        "predict": lambda: client.predict(read_image(target)),
        "inspect": lambda: client.inspect(read_image(target), top_k=top_k),
        "steer": lambda: client.steer(read_image(target), [parse_edit(text) for text in edit or []]),
        "feature": lambda: client.feature(target),
        "search": lambda: client.search(target),
        "describe": client.describe,
    }
    if operation not in answers:
        raise UsageError(f"There is no operation {operation!r}.", f"Choose one of {', '.join(answers)}.")
    typer.echo(json.dumps(answers[operation](), indent=1, ensure_ascii=False))


def read_image(path: str) -> bytes:
    if not Path(path).is_file():
        raise UsageError(f"There is no image file {path!r}.", "Name one, e.g. elude call predict bag.png.")
    return Path(path).read_bytes()
