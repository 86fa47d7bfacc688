"""The command ``demo``: the whole way on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from elude.cli import export_commands, package_commands, quality_commands
from elude.cli.terminal import show
from elude.handlers.errors import EludeError

commands = typer.Typer()


@commands.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes; replaced.")] = Path(
        "build/demo"
    ),
) -> None:
    """The whole way on the embedded model: export, serve and steer over HTTP, judge, admit, report."""
    import shutil

    bundle, archive, store = out / "bundle", out / "elude.mar", out / "store"
    if store.exists():
        shutil.rmtree(store)
    step("1. Export", f"elude export embedded --layers last --out {bundle}")
    export_commands.export("embedded", bundle, overwrite=True)
    step("2. Serve", f"elude package {bundle} --out {archive}; elude serve {archive}; elude call …")
    package_commands.package(bundle, archive)
    try_out(bundle, archive)
    step(
        "3. Judge",
        f"elude evaluate {bundle} --quick --budget 200; elude gate {bundle}; elude admit {bundle} --store {store}",
    )
    quality_commands.evaluate(str(bundle), quick=True, budget=200)
    try:
        quality_commands.gate(bundle)
    except typer.Exit as verdict:
        if verdict.exit_code:
            raise
    package_commands.admit(bundle, str(store), who="demo", why="make demo")
    step("4. Look", f"elude report {bundle}")
    quality_commands.report(bundle)
    typer.echo(f"\nOpen {(bundle / 'report.html').resolve()} in a browser.")
    typer.echo(f"Next: elude explore {bundle}")
    typer.echo(f"Then: elude export YOUR_TIMM_MODEL --images YOUR_IMAGES --out {out}/mine")


def step(title: str, commands: str) -> None:
    Console().rule(f"[bold]{title}", align="left")
    typer.echo("\n".join(f"$ {command}" for command in commands.split("; ")))


def try_out(bundle: Path, archive: Path) -> None:
    """Serve the archive, predict, inspect and steer one image over HTTP, and compare the unsteered answer with the
    original model.
    """
    import torch

    from elude.exporter.images import open_images
    from elude.exporter.models.load import EMBEDDED_FOLDER, load_model
    from elude.exporter.rewrite import graft
    from elude.exporter.splitting.split_file import load_splits
    from elude.handlers.torchserve.server import Server

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
            "inspect: sub-units behind it": "\n".join(
                f"{sub_unit['id']}, effect {sub_unit['effect']:.3f}" for sub_unit in behind
            ),
            "steer: these, each times -20": top(steered["steered"]),
            "unsteered, same request": top(steered["unsteered"]),
            "unsteered logits bit-identical to the original's": "yes" if same else "NO",
        },
    )
    if not same or steered["unsteered"] == steered["steered"]:
        raise EludeError("The demo's checks failed: an unsteered answer changed, or a steered one did not.")


def top(probabilities: dict[str, float]) -> str:
    return ", ".join(f"{label} {value:.3f}" for label, value in list(probabilities.items())[:3])
