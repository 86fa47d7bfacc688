"""The commands that ask a server, and look into a model in the browser."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from elude.cli.faults import visible
from elude.handlers.errors import RequestError, UsageError
from elude.handlers.files import parse_json, read_json, read_plain
from elude.handlers.requests.edit_text import parse_edit

WIDTH = 100  # of a line of an answer
HITS = 10  # concepts, and sub-units, of a search without --top-k: a screen or two
NEW_KEY = (
    "Give the key of the running server: run the line 'export ELUDE_URL=… ELUDE_TOKEN=…' that it printed. If the key "
    "has expired, start the server again; 'elude serve --token-minutes' sets how long it is valid."
)
commands = typer.Typer()
# Operations without an image: the field that says what to look up, and an example.
_LOOKUPS = {"feature": ("id", "blocks.5.mlp.fc2/u3.s1"), "concept": ("id", "c12"), "search": ("query", "strap")}


@commands.command()
def explore(
    target: Annotated[str, typer.Argument(help="A bundle, or the address of a running server.", metavar="URL|BUNDLE")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for any free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on; whoever reaches it can ask the model.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(envvar="ELUDE_TOKEN", help="The server's inference key; the page never sees it.")
    ] = None,
    model: Annotated[str, typer.Option(envvar="ELUDE_MODEL", help="The model's name in the server's URLs.")] = "elude",
    beside: Annotated[
        str | None,
        typer.Option(
            help="A second model, whose answers and concepts stand beside those of the first.", metavar="URL|BUNDLE"
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Look into a model in the browser: what it sees, which sub-units count, and what happens when they are steered.

    Examples: elude explore BUNDLE

    elude explore BUNDLE --beside OTHER
    """
    try:
        from elude.handlers.explorer.app import explore as run
        from elude.handlers.explorer.backends import Own, Remote
    except ModuleNotFoundError as error:
        raise UsageError(
            f"The explorer needs {error.name}, which is not installed.", "Run: pip install 'elude[web]'"
        ) from error
    from elude.handlers.admission.requirements import Requirements
    from elude.handlers.service import Service
    from elude.handlers.settings import read_settings
    from elude.handlers.torchserve.client import Client

    def backend(source: str, name: str) -> Remote | Own:
        if source.startswith(("http://", "https://")):
            return Remote(Client(source, token, model=model))
        settings, threads = read_settings({}), os.cpu_count() or 1
        opened = Service.open(source, settings, model=model, requirements=Requirements.load(), threads=threads)
        return Own(opened, name)

    def ready(address: str) -> None:
        typer.echo(f"Explore {' beside '.join(sources)} at {address}    (Ctrl-C stops)")
        if open_page:
            webbrowser.open(address)

    sources = [target] if beside is None else [target, beside]
    names = [Path(source).resolve().name for source in sources]
    own, *second = map(backend, sources, names if len(set(names)) == len(names) else sources)
    run(own, host, port, ready, *second)


@commands.command()
def call(
    operation: Annotated[str, typer.Argument(help="predict, inspect, steer, feature, concept, search or describe.")],
    what: Annotated[
        str, typer.Argument(help="An image file; an identifier for 'feature' and 'concept'; words for 'search'.")
    ] = "",
    edit: Annotated[
        list[str] | None, typer.Option(help="For 'steer': ID=ACTION[:VALUE][@PATCHES]; may be repeated.")
    ] = None,
    concept: Annotated[
        list[str] | None, typer.Option(help="For 'steer': NAME=ACTION[:VALUE][@PATCHES], for all of a concept.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="For 'steer': a named list of edits instead.")] = None,
    compare: Annotated[bool | None, typer.Option(help="For 'steer': also the unsteered prediction.")] = None,
    top_k: Annotated[
        int | None,
        typer.Option(help=f"How many at most, for 'predict', 'inspect', 'steer' and 'search' (there {HITS} of each)."),
    ] = None,
    by: Annotated[str | None, typer.Option(help="For 'inspect': activation or effect.")] = None,
    target: Annotated[str | None, typer.Option(help="For 'inspect --by effect': the class.")] = None,
    candidates: Annotated[int | None, typer.Option(help="For 'inspect --by effect': how many are measured.")] = None,
    layer: Annotated[str | None, typer.Option(help="For 'inspect': of this layer only.")] = None,
    unit: Annotated[str | None, typer.Option(help="For 'inspect': the parts of this unit only.")] = None,
    heat_map: Annotated[str | None, typer.Option(help="For 'inspect': grid, png or none (default).")] = None,
    examples: Annotated[int | None, typer.Option(help="For 'feature' and 'concept': example images at most.")] = None,
    image: Annotated[str | None, typer.Option(help="An image file, for 'search' by image.")] = None,
    body: Annotated[
        Path | None,
        typer.Option("--fields", help="A JSON file of further fields of the request; '-' reads standard input."),
    ] = None,
    url: Annotated[str, typer.Option(envvar="ELUDE_URL")] = "http://127.0.0.1:8080",
    token: Annotated[str | None, typer.Option(envvar="ELUDE_TOKEN", help="The server's inference key.")] = None,
    model: Annotated[str, typer.Option(envvar="ELUDE_MODEL", help="The model's name in URLs.")] = "elude",
    version: Annotated[
        str | None, typer.Option(help="Of several served side by side; the default one otherwise.")
    ] = None,
) -> None:
    """Ask a server; prints its JSON answer.

    Examples: elude call steer bag.png --edit 'blocks.5.mlp.fc2/u3.s1=scale:4@10'

    elude call inspect bag.png --by effect --target Bag --heat-map none
    """
    from elude.handlers.requests.schema import OPERATIONS
    from elude.handlers.torchserve.client import Client

    if operation not in OPERATIONS:
        raise UsageError(f"There is no operation {operation!r}.", f"Choose one of {', '.join(OPERATIONS)}.")
    edits = [parse_edit(text) for text in edit or []] + [parse_edit(text, "concept") for text in concept or []]
    options: dict[str, Any] = {"edits": edits or None, "preset": preset, "compare": compare, "by": by, "target": target}
    options |= {"candidates": candidates, "layer": layer, "unit": unit, "heat_map": heat_map, "examples": examples}
    options["limit" if operation == "search" else "top_k"] = top_k
    fields = (read_fields(body) if body else {}) | {name: value for name, value in options.items() if value is not None}
    fields |= subject(operation, what, image, fields)
    if operation == "inspect":
        fields.setdefault("heat_map", "none")  # hundreds of numbers per sub-unit
    shortened = operation == "search" and "limit" not in fields
    if shortened:
        fields["limit"] = HITS
    known = [entry.name for entry in dataclasses.fields(OPERATIONS[operation])]
    if unknown := [name for name in fields if name not in known]:
        takes = f"It takes {', '.join(known)}." if known else "It takes nothing."
        raise UsageError(f"{operation!r} does not take {', '.join(unknown)}.", takes)
    try:
        answer = Client(url, token, model=model, version=version).call(operation, **fields)
    except RequestError as error:
        if error.status == 401 or "Token Authorization failed" in error.message:
            raise RequestError(error.message, NEW_KEY, error.status) from error
        raise
    typer.echo(visible(pretty(answer)))
    if shortened and HITS in map(len, filter(None, (answer.get("concepts"), answer.get("sub_units")))):
        typer.echo(f"These are the best {HITS}; there may be more: --top-k {2 * HITS}", err=True)


def pretty(value: Any, indent: str = "") -> str:
    """JSON for reading: an object or list that fits stands on one line, and so does a list of numbers of any depth;
    of an object within one, lines are filled.
    """
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value or len(indent) + len(line) <= WIDTH or numeric(value):
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        lines = [f"{json.dumps(name, ensure_ascii=False)}: {pretty(entry, deeper)}" for name, entry in value.items()]
    else:
        lines = [pretty(entry, deeper) for entry in value]
    if isinstance(value, dict) and fills(value, lines, bool(indent)):
        return "{" + f",\n{deeper}".join(filled(lines, WIDTH - len(deeper))) + "}"
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return begin + ",".join(f"\n{deeper}{line}" for line in lines) + f"\n{indent}{end}"


def fills(value: dict[str, Any], lines: list[str], inner: bool) -> bool:
    """Whether an object's fields may share lines: each fits on one, and at the top none is an object or a list."""
    return not any("\n" in line for line in lines) and (
        inner or not any(isinstance(entry, (dict, list)) for entry in value.values())
    )


def filled(fields: list[str], width: int) -> list[str]:
    """The fields in lines, each as many as fit."""
    lines = fields[:1]
    for field in fields[1:]:
        if len(lines[-1]) + len(field) + 3 > width:
            lines.append(field)
        else:
            lines[-1] += f", {field}"
    return lines


def numeric(value: Any) -> bool:
    """Whether it holds nothing but numbers, e.g. the values of a heat map."""
    return all(map(numeric, value)) if isinstance(value, list) else isinstance(value, (int, float))


def subject(operation: str, what: str, image: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """What the request is about, by the kind of operation: an image, an identifier, or words."""
    if image is not None:
        return {"image": read_image(operation, image)} | ({"query": what} if what and operation == "search" else {})
    if operation in _LOOKUPS:
        name, example = _LOOKUPS[operation]
        if not what and not {name, "image"} & fields.keys():
            raise UsageError(
                f"{operation!r} needs something to look for.", f"Name it, e.g. elude call {operation} {example}."
            )
        return {name: what} if what else {}
    if operation == "describe":
        return {"image": what} if what else {}  # refused as unknown
    return {} if not what and "image" in fields else {"image": read_image(operation, what)}


def read_image(operation: str, path: str) -> str:
    """The file in base64."""
    if not Path(path).is_file():
        raise UsageError(f"There is no image file {path!r}.", f"Name one, e.g. elude call {operation} bag.png.")
    return base64.b64encode(read_plain(path)).decode()


def read_fields(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or from standard input for ``-``."""
    try:
        fields = parse_json(sys.stdin.read()) if str(path) == "-" else read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--fields {path} cannot be read: {error}.", "Give it a file with one JSON object.") from error
    if not isinstance(fields, dict):
        raise UsageError(f"--fields {path} holds no JSON object.", 'Write it as {"top_k": 3}.')
    return fields
