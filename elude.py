"""elude: the command line, and the public API loaded on demand. Composes the rooms and decides nothing itself.

>>> import elude
>>> bundle = elude.export("embedded", "images.tar", out="bundle")      # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

import exporter.atlas_pages.commands
import exporter.commands
import exporter.naming.commands
import model_store.commands
import model_store.serving_commands
import quality.commands
import quality.steering.commands
from exporter.terminal import AsJson, show
from handlers.errors import EludeError

# Read by OpenMP when torch is first loaded: threads that wait must sleep, or the processes of a busy machine stall each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_PUBLIC = {
    "export": "exporter.pipeline",
    "ExportSettings": "exporter.pipeline",
    "load_model": "exporter.load",
    "graft": "exporter.rewrite",
    "explicit": "exporter.rewrite",
    "Bundle": "handlers.bundle",
    "Edit": "handlers.edits",
    "GraphSession": "handlers.session",
    "evaluate": "quality.evaluation.evaluate",
    "judge": "quality.gate.judge",
    "quba_score": "quality.scores.quba",
    "package": "model_store.archive",
    "Store": "model_store.store",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its room when it is first used, so that ``import elude`` stays light."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'elude' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


app = typer.Typer(
    help="Export a pretrained image model that explains itself, steer it, and gate its release on quality.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for room in (
    exporter.commands,
    exporter.naming.commands,
    exporter.atlas_pages.commands,
    quality.commands,
    quality.steering.commands,
    model_store.commands,
    model_store.serving_commands,
):
    app.add_typer(room.commands)


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes; replaced.")] = Path("build/demo")) -> None:
    """The whole way on the embedded model: export, serve and steer over HTTP, judge, admit, report."""
    import shutil

    bundle, archive, store = out / "bundle", out / "elude.mar", out / "store"
    if store.exists():
        shutil.rmtree(store)
    step("1. Export", f"elude export embedded --layers last --out {bundle}")
    exporter.commands.export("embedded", bundle, overwrite=True)
    step("2. Serve", f"elude package {bundle} --out {archive}; elude serve {archive}; elude call …")
    model_store.commands.package(bundle, archive)
    try_out(bundle, archive)
    step("3. Judge", f"elude evaluate {bundle} --quick --budget 200; elude gate {bundle}; elude admit {bundle} --store {store}")
    quality.commands.evaluate(str(bundle), quick=True, budget=200)
    try:
        quality.commands.gate(bundle)
    except typer.Exit as verdict:
        if verdict.exit_code:
            raise
    model_store.commands.admit(bundle, str(store), who="demo", why="make demo")
    step("4. Look", f"elude report {bundle}")
    quality.commands.report(bundle)
    typer.echo(f"\nOpen {(bundle / 'report.html').resolve()} in a browser.")
    typer.echo(f"Next: elude explore {bundle}")
    typer.echo(f"Then: elude export YOUR_TIMM_MODEL --images YOUR_IMAGES --out {out}/mine")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look whether this machine is ready: versions, providers, Java, package names, ports. Exit code 1 if something is in the way.

    Example: elude doctor
    """
    from model_store.doctor import examine

    findings = examine()
    marks = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
    rows = {each.what: f"{marks[each.state]}: {each.said}" + (f"\n→ {each.remedy}" if each.remedy else "") for each in findings}
    show("elude doctor", {each.what: asdict(each) for each in findings} if as_json else rows, as_json)
    if any(each.state == "problem" for each in findings):
        raise typer.Exit(1)


def step(title: str, commands: str) -> None:
    Console().rule(f"[bold]{title}", align="left")
    typer.echo("\n".join(f"$ {command}" for command in commands.split("; ")))


def try_out(bundle: Path, archive: Path) -> None:
    """Serve the archive, predict, inspect and steer one image over HTTP, and hold the unsteered answer against the original model."""
    import torch

    from exporter.images import open_images
    from exporter.load import EMBEDDED_FOLDER, load_model
    from exporter.rewrite import graft
    from exporter.weights import load_splits
    from handlers.torchserve.server import Server

    images = open_images(EMBEDDED_FOLDER / "evaluation.tar")
    index = [entry.name for entry in images.entries].index("pullover/05061.png")
    example = images[index]
    with Server(archive) as server:
        client = server.client()
        predicted = client.predict(example.data)
        found = client.inspect(example.data, by="effect", top_k=20, heat_map="none")["sub_units"]
        behind = [sub_unit for sub_unit in found if sub_unit["effect"] > 0][:3]
        edits = [{"id": sub_unit["id"], "action": "scale", "value": -20.0} for sub_unit in behind]
        steered = client.steer(example.data, edits)
    loaded = load_model("embedded")
    pixels = torch.from_numpy(loaded.preprocess.normalise(images.pixels(index, loaded.preprocess)[None]))
    twin = graft(loaded.module, load_splits(bundle / "disentangled.safetensors"))
    with torch.no_grad():
        same = torch.equal(loaded.module(pixels), twin(pixels))
    show(
        f"One image over HTTP: {example.name}",
        {
            "predict": top(predicted),
            "inspect: sub-units behind it": "\n".join(f"{sub_unit['id']}, effect {sub_unit['effect']:.3f}" for sub_unit in behind),
            "steer: these, each times -20": top(steered["steered"]),
            "unsteered, same request": top(steered["unsteered"]),
            "unsteered logits bit-identical to the original's": "yes" if same else "NO",
        },
    )
    if not same or steered["unsteered"] == steered["steered"]:
        raise EludeError("The demo's checks failed: an unsteered answer changed, or a steered one did not.")


def top(probabilities: dict[str, float]) -> str:
    return ", ".join(f"{label} {value:.3f}" for label, value in list(probabilities.items())[:3])


def main() -> None:
    """Entry point: errors of the project become one line on standard error and their exit code."""
    try:
        app()
    except EludeError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
