"""elude: the command line, and the public API loaded on demand. Composes the rooms and decides nothing itself.

>>> import elude
>>> bundle = elude.export("embedded", "images.tar", out="bundle")      # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from handlers.errors import EludeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from handlers.bundle import Bundle

# Read by OpenMP when torch is first loaded: threads that wait must sleep, or the processes of a busy machine stall each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
QUICK = ["accuracy", "calibration_error", "class_balance", "corruption_robustness", "params_m"]

_PUBLIC = {
    "export": "exporter.pipeline",
    "ExportSettings": "exporter.pipeline",
    "load_model": "exporter.load",
    "graft": "exporter.rewrite",
    "explicit": "exporter.rewrite",
    "Bundle": "handlers.bundle",
    "Edit": "handlers.edits",
    "GraphSession": "handlers.session",
    "evaluate": "quality.evaluate",
    "judge": "quality.gate",
    "quba_score": "quality.score",
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
BundlePath = Annotated[Path, typer.Argument(help="A bundle: the folder that `elude export` writes.", metavar="BUNDLE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]


def show(title: str, rows: dict[str, Any], as_json: bool = False) -> None:
    """Print a short two-column table, or the same as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    for name, value in rows.items():
        table.add_row(name, value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else str(value))
    Console(width=min(Console().width, 140)).print(table)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress on standard error, silent when that is not a terminal: call it with (what, done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield step


def open_bundle(path: Path) -> Bundle:
    from handlers.bundle import Bundle

    return Bundle.open(path)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="'embedded', a timm name, 'hf-hub:OWNER/NAME', or a local folder with config.json.")],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    images: Annotated[Path | None, typer.Option(help="Probing images: a folder or a .tar; the embedded model brings its own.")] = None,
    layers: Annotated[str, typer.Option(help="Glob over module paths; 'last' is the last block's fc2.")] = "last",
    evaluation: Annotated[Path | None, typer.Option(help="Held-out images for the MS-Score.")] = None,
    max_images: Annotated[int, typer.Option(help="Probing images used at most.")] = 20_000,
    tokens: Annotated[int, typer.Option(help="Tokens kept of each image.")] = 8,
    top_k: Annotated[int | None, typer.Option(help="Instances clustered per unit.")] = None,
    min_cluster_size: Annotated[int | None, typer.Option(help="Fewest instances of a sub-unit's cluster.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle at --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Split a model's units into sub-units, check that nothing changed, and write the bundle.

    Example: elude export embedded --out build/bundle
    """
    from exporter.pipeline import ExportSettings
    from exporter.pipeline import export as run

    settings = ExportSettings(max_images=max_images, tokens_per_image=tokens, top_k=top_k, min_cluster_size=min_cluster_size, seed=seed)
    with progress_bar() as progress:
        bundle = run(model, images, layers, out, settings, evaluation=evaluation, overwrite=overwrite, progress=progress)
    show(f"Exported to {bundle.root}", export_facts(bundle), as_json)


def export_facts(bundle: Bundle) -> dict[str, Any]:
    """What a person wants to know of a fresh bundle."""
    summary, measures = bundle.json("equivalence.json")["summary"], bundle.json("measures.json")
    layers = bundle.manifest.layers
    facts: dict[str, Any] = {
        "layers": ", ".join(layer.name for layer in layers),
        "units split": f"{sum(part > 1 for layer in layers for part in layer.parts)} of {sum(layer.units for layer in layers)}",
        "expansion factor": round(bundle.manifest.expansion_factor, 2),
        "max |Δ| sub-units summed vs units": summary["sums"],
        "max |Δ output| torch vs original": summary["rewrite"],
        "max |Δ output| ONNX Runtime vs torch": summary["runtime"],
        "top-1 agreement ONNX Runtime vs torch": summary["top1"],
    }
    for layer, families in measures["layers"].items():
        for family, label in (("units", "units"), ("sub_units", "sub-units"), ("random", "random split, same K")):
            facts[f"MS-Score {layer}, {label}"] = families[family]["ms_mean_of_split_units"]
            facts[f"  on centred embeddings, {label}"] = families[family]["centred_mean_of_split_units"]
    return facts


@app.command()
def evaluate(
    bundle: BundlePath,
    suite: Annotated[str, typer.Option(help="'embedded', or a folder or .tar with one sub-folder a class.")] = "embedded",
    dimensions: Annotated[str | None, typer.Option(help="Comma-separated; by default all that the suite allows.")] = None,
    quick: Annotated[bool, typer.Option(help="Five of the fifteen corruptions; no attacks and no made images.")] = False,
    budget: Annotated[int | None, typer.Option(help="Images for the dimensions that need many passes.")] = None,
    seed: Annotated[int, typer.Option(help="Of corruptions, attacks and intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the original, the disentangled and the served model and write quality.json into the bundle.

    Example: elude evaluate build/bundle --quick
    """
    from quality.evaluate import evaluate as run
    from quality.suite import open_suite

    opened, data = open_bundle(bundle), open_suite(suite)
    wanted = dimensions.split(",") if dimensions else QUICK if quick else None
    with progress_bar() as progress:
        report = run(opened, data.quick() if quick else data, dimensions=wanted, budget=budget, seed=seed, progress=progress)
    opened.add({"quality.json": report.to_bytes()})
    rows = {}
    for name, result in report.dimensions.items():
        interval = f"   95 % in [{result.interval[0]:.4f}, {result.interval[1]:.4f}]" if result.interval else ""
        rows[name] = f"{result.value:.4f}{interval}"
    forms = report.lossless or {}
    gaps = [abs(forms["original"][d] - forms[form][d]) for form in forms for d in forms[form] if "original" in forms]
    rows["largest change by the rewrite"] = f"{max(gaps, default=0.0):.3g}"
    show(f"Quality of the served model on {report.suite['name']}, {report.suite['images']} images", rows, as_json)


@app.command()
def gate(
    bundle: BundlePath,
    policy: Annotated[Path | None, typer.Option(help="Policy file (TOML); by default the embedded model's.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Bundle of an earlier release to compare with.")] = None,
    waivers: Annotated[Path | None, typer.Option(help="Waivers (TOML).")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a bundle by a policy and write verdict.json into it. Exit code 0: passed, 1: failed, 3: could not be judged.

    Example: elude gate build/bundle --policy policy.toml
    """
    from quality import verdict_formats
    from quality.gate import judge
    from quality.policy import DEFAULT_POLICY, load_policy
    from quality.waivers import load_waivers

    rules = load_policy(policy or DEFAULT_POLICY)
    opened = open_bundle(bundle) if bundle.exists() else None
    before = open_bundle(baseline) if baseline else None
    verdict = judge(opened, rules, baseline=before, waivers=load_waivers(waivers) if waivers else ())
    if opened is not None:
        opened.add({"verdict.json": verdict_formats.verdict_json(verdict)})
    if junit:
        junit.write_bytes(verdict_formats.junit_xml(verdict))
    if markdown:
        markdown.write_text(verdict_formats.markdown(verdict), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), indent=1))
    else:
        notable = {check.name: f"{check.outcome.upper()}: {check.reason}" for check in verdict.checks if check.outcome != "pass"}
        counts = verdict.to_json()["counts"]
        rows = notable | {"all checks": ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)}
        state = "PASSED" if verdict.passed else "FAILED" if verdict.state == "judged" else verdict.state
        show(f"Gate: {state}, policy {verdict.policy_name}", rows)
    raise typer.Exit(verdict.exit_code)


@app.command()
def report(bundle: BundlePath) -> None:
    """Write report.html into the bundle: equivalence, quality, verdict, and the most split units with their sub-units."""
    from quality.report import write_report

    typer.echo(write_report(open_bundle(bundle)).path("report.html"))


@app.command()
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

    typer.echo(run(open_bundle(bundle), out, name=name, version=version))


@app.command()
def admit(
    bundle: BundlePath,
    store: Annotated[Path, typer.Option(help="The model store, a folder.")],
    who: Annotated[str, typer.Option(help="Kept in the record.", envvar="USER")] = "",
    why: Annotated[str, typer.Option(help="Kept in the record.")] = "release",
    archive: Annotated[Path | None, typer.Option(help="Its .mar; by default one is made.")] = None,
) -> None:
    """Put a bundle that passed the gate, with its archive, into the store. Exit code 1 if its verdict forbids it."""
    import tempfile

    from model_store.archive import package as make
    from model_store.store import Store

    opened = open_bundle(bundle)
    with tempfile.TemporaryDirectory() as folder:
        made = archive or make(opened, folder, name="elude", version="1.0")
        admitted = Store(store).admit(bundle, made, who=who or "unknown", why=why)
    show(f"Admitted to {store}", {"version": admitted.id, "bundle": str(admitted.bundle), "archive": str(admitted.archive)})


@app.command()
def serve(
    archives: Annotated[list[Path], typer.Argument(help="One or several .mar files.", metavar="ARCHIVE...")],
    port: Annotated[int, typer.Option(help="Of inference; management and metrics take the next two.")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes per model.")] = 1,
) -> None:
    """Serve archives with TorchServe on loopback until Ctrl-C.

    Example: elude serve build/elude.mar --port 8080
    """
    import signal

    from handlers.torchserve.server import Server, ServerSettings

    with Server(list(archives), ServerSettings(workers=workers), ports=(port, port + 1, port + 2)) as server:
        client = server.client()
        typer.echo(f"Serving {', '.join(archive.name for archive in server.archives)} at {client.url}; log: {server.log}")
        typer.echo(f"export ELUDE_URL={client.url} ELUDE_TOKEN={server.key('inference')}")
        typer.echo("Try: elude call inspect IMAGE    (Ctrl-C stops)")
        try:
            signal.pause()
        except KeyboardInterrupt:
            typer.echo("Stopping", err=True)


@app.command()
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


def parse_edit(text: str) -> dict[str, Any]:
    """``ID=ACTION[:VALUE][@PATCHES]`` as the JSON of an edit."""
    identifier, _, rest = text.partition("=")
    action_value, _, patches = rest.partition("@")
    action, _, value = action_value.partition(":")
    found: dict[str, Any] = {"id": identifier, "action": action}
    try:
        if value:
            found["value"] = float(value)
        if patches:
            found["patches"] = int(patches)
    except ValueError as error:
        raise UsageError(f"The edit {text!r} has a value that is no number.", "Write ID=ACTION[:VALUE][@PATCHES].") from error
    return found


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes; replaced.")] = Path("build/demo")) -> None:
    """The whole way on the embedded model: export, serve and steer over HTTP, judge, admit, report."""
    import shutil

    bundle, archive, store = out / "bundle", out / "elude.mar", out / "store"
    if store.exists():
        shutil.rmtree(store)
    step("1. Export", f"elude export embedded --layers last --out {bundle}")
    export("embedded", bundle, overwrite=True)
    step("2. Serve", f"elude package {bundle} --out {archive}; elude serve {archive}; elude call …")
    package(bundle, archive)
    try_out(bundle, archive)
    step("3. Judge", f"elude evaluate {bundle} --quick; elude gate {bundle}; elude admit {bundle} --store {store}")
    evaluate(bundle, quick=True)
    try:
        gate(bundle)
    except typer.Exit as verdict:
        if verdict.exit_code:
            raise
    admit(bundle, store, who="demo", why="make demo")
    step("4. Look", f"elude report {bundle}")
    report(bundle)
    typer.echo(f"\nOpen {(bundle / 'report.html').resolve()} in a browser.")
    typer.echo(f"Next: elude export YOUR_TIMM_MODEL --images YOUR_IMAGES --out {out}/mine")


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

    images = open_images(EMBEDDED_FOLDER / "evaluation.tar").limited(1)
    example = images[0]
    with Server(archive) as server:
        client = server.client()
        predicted = client.predict(example.data)
        strongest = client.inspect(example.data, top_k=1, heat_map="none")["sub_units"][0]
        edits = [{"id": strongest["id"], "action": "scale", "value": -4.0}]
        steered = client.steer(example.data, edits)
    loaded = load_model("embedded")
    _, pixels = next(images.batches(loaded.preprocess, 1))
    twin = graft(loaded.module, load_splits(bundle / "disentangled.safetensors"))
    with torch.no_grad():
        same = torch.equal(loaded.module(torch.from_numpy(pixels)), twin(torch.from_numpy(pixels)))
    show(
        f"One image over HTTP: {example.name}",
        {
            "predict": top(predicted),
            "inspect: strongest sub-unit": f"{strongest['id']}, activation {strongest['activation']:.3g}",
            "steer: that sub-unit × -4": top(steered["steered"]),
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
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {error}", markup=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
