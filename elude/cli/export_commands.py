"""The exporter's commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elude.cli.terminal import AsJson, BundlePath, show, warn
from elude.exporter.models.options import ONNX
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EquivalenceError, UsageError
from elude.handlers.files import parse_json, read_plain
from elude.progress import progress_bar

commands = typer.Typer()
ENOUGH_IMAGES = 5_000  # beyond, photographs bought little (docs/benchmarks/cost.md)
_MODEL = (
    "'embedded', a timm name, 'hf-hub:OWNER/NAME', 'torchvision:NAME', a folder with config.json (of timm or "
    "transformers), 'package.module:factory', or a file 'model.onnx', which needs no torch."
)
_ORIGINAL = "The original model, where the bundle cannot load it by name: 'package.module:factory' or 'model.onnx'."
_IMAGES = "a folder, a .tar, shards 'x-{000..009}.tar', a list .txt, or 'hf:OWNER/NAME[:SPLIT]'"


@commands.command()
def export(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    images: Annotated[
        str | None, typer.Option(help=f"Probing images: {_IMAGES}; the embedded model brings its own.")
    ] = None,
    layers: Annotated[
        str,
        typer.Option(help="Module paths with '*' and '?'; 'last': the last block's mlp.fc2, or the last map."),
    ] = "last",
    evaluation: Annotated[
        str | None, typer.Option(help="Held-out images for the MS-Score, named as --images are.")
    ] = None,
    max_images: Annotated[int, typer.Option(help="Probing images used at most.")] = 20_000,
    tokens: Annotated[int, typer.Option(help="Tokens kept per image.")] = 8,
    top_k: Annotated[int | None, typer.Option(help="Instances clustered per unit.")] = None,
    min_cluster_size: Annotated[int | None, typer.Option(help="Fewest instances of a sub-unit's cluster.")] = None,
    method: Annotated[
        str, typer.Option(help="'default', or 'paper': the paper's rule on exact HDBSCAN, slower.")
    ] = "default",
    margin_rule: Annotated[
        str | None, typer.Option(help="Instead of the method's: literal, smallest or signed.")
    ] = None,
    clusterer: Annotated[
        str | None, typer.Option(help="Instead of the method's: hdbscan, projected or pictures.")
    ] = None,
    expansion: Annotated[float, typer.Option(help="Sub-units per unit of a layer, at most.")] = 5.0,
    names: Annotated[str, typer.Option(help="'labels': after the classes of the strongest images; 'none'.")] = "labels",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images per forward pass.")] = 64,
    engine: Annotated[
        str, typer.Option(help="'local', or 'ray': the cluster that RAY_ADDRESS names, else one started here.")
    ] = "local",
    workers: Annotated[int, typer.Option(help="Processes that cluster units; 0: threads of this process.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle at --out.")] = False,
    preprocess: Annotated[
        Path | None, typer.Option(help="JSON file like a bundle's preprocess.json, where the model does not bring one.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Names of the outputs: a text file with one per line, or a JSON list or object.")
    ] = None,
    output_kind: Annotated[
        str | None, typer.Option(help="What the outputs mean: classes, multi-label, regression or embedding.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Of a model with several outputs: which one, by name.")] = None,
    pool: Annotated[
        str | None, typer.Option(help="Of an output with places: 'mean' over them, or the 'first' token.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the graph: float32, float16 or bfloat16.")] = "float32",
    opset: Annotated[int | None, typer.Option(help="ONNX operator set, 18 or later.")] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Leave the image's height and width open in the graph.")
    ] = False,
    like: Annotated[
        Path | None, typer.Option(help="An older bundle whose identifiers are carried over.", metavar="OLD_BUNDLE")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse images that cannot be read, instead of leaving them out.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(help="Where torch collects and measures: cpu, cuda, cuda:1, or auto for a GPU if there is one."),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Split a model's units into sub-units, check that nothing changed, and write the bundle.

    After a kill or an error the same call resumes: what was collected stays in OUT.partial until the end.

    Example: elude export embedded --out build/bundle
    """
    from elude.exporter.export.given_images import open_given
    from elude.exporter.models.options import EMBEDDED

    # Loading torch takes seconds: what is mistyped is found before.
    probing = open_given(images, model == EMBEDDED, "probe")
    judging = None if evaluation is None else open_given(evaluation, False, "evaluation")
    if Path(out).exists() and not overwrite:
        raise UsageError(f"{out} already exists.", "Choose another place or --overwrite.")
    from elude.exporter.export.export_settings import ExportSettings
    from elude.exporter.export.pipeline import export as run

    settings = ExportSettings(
        max_images=max_images,
        tokens_per_image=tokens,
        top_k=top_k,
        min_cluster_size=min_cluster_size,
        method=method,
        margin_rule=margin_rule,
        clusterer=clusterer,
        expansion=expansion,
        seed=seed,
        names=names,
        batch_size=batch_size,
        dtype=dtype,
        opset=opset,
        dynamic_size=dynamic_size,
        strict=strict,
        device=device,
    )
    options: dict[str, Any] = {"evaluation": judging, "overwrite": overwrite, "engine": engine, "workers": workers}
    options |= {"kind": output_kind, "output": output, "pool": pool, "like": like}
    options |= {"preprocess": read_json(preprocess), "labels": read_labels(labels)}
    with progress_bar() as progress:
        bundle = run(model, probing, layers, out, settings, progress=progress, notify=warn, **options)
    show(f"Exported to {bundle.root}", export_facts(bundle), as_json)
    if images is not None and (note := what_more_would_buy(bundle)):
        warn(note)


def read_json(path: Path | None) -> Any:
    """Content of a JSON file; None without one."""
    if path is None:
        return None
    try:
        return parse_json(read_plain(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Give a JSON file.") from error


def read_labels(path: Path | None) -> list[str] | dict[str, str] | None:
    """Labels of a JSON file, or of a text file with one per line; None without a file."""
    if path is None or path.suffix.lower() == ".json":
        content = read_json(path)
        if content is not None and not isinstance(content, (list, dict)):
            raise UsageError(f"{path} holds neither a list nor an object of labels.")
        return content
    try:
        return read_plain(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Give a text file with one label per line.") from error


def export_facts(bundle: Bundle) -> dict[str, Any]:
    """What a person wants to know of a fresh bundle."""
    summary, measures = bundle.json("equivalence.json")["summary"], bundle.json("measures.json")
    layers, from_file = bundle.manifest.layers, bundle.manifest.source.model.startswith(ONNX)
    rewritten = "split vs given file, not optimised" if from_file else "torch vs original"
    run = "split vs given file" if from_file else "ONNX Runtime vs torch"
    facts: dict[str, Any] = {
        "layers": ", ".join(layer.name for layer in layers),
        "units split": (
            f"{sum(part > 1 for layer in layers for part in layer.parts)} of {sum(layer.units for layer in layers)}"
        ),
        "expansion factor": round(bundle.manifest.expansion_factor, 2),
        "max |Δ| sub-units summed vs units": summary["sums"],
        f"max |Δ output| {rewritten}": summary["rewrite"],
        f"max |Δ output| {run}": summary["runtime"],
        f"top-1 agreement {run}": summary["top1"],
    }
    for layer, families in measures["layers"].items():
        for family, label in (("units", "units"), ("sub_units", "sub-units"), ("random", "control, same K")):
            facts[f"MS-Score {layer}, {label}"] = families[family]["ms_mean_of_split_units"]
            facts[f"  on centred embeddings, {label}"] = families[family]["centred_mean_of_split_units"]
        if floor := families.get("random_pairs"):
            facts[f"MS-Score {layer}, random pairs of images"] = floor["ms"]
            facts["  on centred embeddings, random pairs of images"] = floor["centred"]
    return facts


def what_more_would_buy(bundle: Bundle) -> str | None:
    """A sentence on what more probing images would buy; None where they bought little in measurements."""
    settings = bundle.json("measures.json")["settings"]
    images, tokens = settings["probing_images"], settings["tokens_per_image"]
    if images >= ENOUGH_IMAGES:
        return None
    return (
        f"{images:,} images × {tokens} tokens were probed. More photographs, up to about {ENOUGH_IMAGES:,}, "
        "make sub-units easier to recognise; more tokens of the same images do less."
    )


@commands.command()
def measure(
    path: BundlePath,
    images: Annotated[
        str | None, typer.Option(help=f"What to measure on: {_IMAGES}; the embedded model brings its own.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Note that the bundle was not made from these images.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Compare images by this model too: a timm name, 'hf-hub:…' or a folder.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Splits made again from these images to see how alike they are; 0: none.")
    ] = 2,
    max_images: Annotated[int, typer.Option(help="Images used at most.")] = 5_000,
    model: Annotated[str | None, typer.Option(help=_ORIGINAL)] = None,
    device: Annotated[
        str, typer.Option(help="Where torch measures: cpu, cuda, cuda:1, or auto for a GPU if there is one.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure how alike the images are that each sub-unit answers to, beside units and a control, and how
    stable the split is.

    The result replaces the measures in the bundle.

    Example: elude measure build/bundle --images my/images --held-out
    """
    from elude.exporter.export.measure_bundle import MeasureSettings, facts, measure_bundle
    from elude.exporter.images import open_images
    from elude.exporter.models.load import EMBEDDED, EMBEDDED_FOLDER

    bundle = Bundle.open(path)
    if images is None:
        if bundle.manifest.source.model != EMBEDDED:
            raise UsageError(
                "No images are given, and only the embedded model brings its own.", f"Give --images: {_IMAGES}."
            )
        images, held_out = str(EMBEDDED_FOLDER / "evaluation.tar"), True
    settings = MeasureSettings(held_out, encoder, seeds, max_images, device=device)
    with progress_bar() as progress:
        measures = measure_bundle(bundle, open_images(images), settings, progress=progress, model=model).json(
            "measures.json"
        )
    rows = facts(measures)
    if as_json:
        for layer in measures["layers"].values():
            for family in ("units", "sub_units", "random"):
                del layer[family]["each"]  # one number for each feature: they are in the file
        rows = measures
    show(f"Measured {path}", rows, as_json)


@commands.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A bundle or a model.onnx.", metavar="BUNDLE|MODEL.ONNX")],
    images: Annotated[str | None, typer.Option(help=f"Real images: {_IMAGES}.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with every comparison here.")] = None,
    model: Annotated[str | None, typer.Option(help=_ORIGINAL)] = None,
    device: Annotated[
        str, typer.Option(help="Where it is run beside the CPU: cuda, cuda:1, auto for a GPU if there is one, or cpu.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare an exported file with the model it was made from. Exit code 1 if they differ.

    Example: elude verify build/bundle --html equivalence.html
    """
    from elude.exporter.verify import page
    from elude.exporter.verify.verify_bundle import verify_file

    try:
        found = verify_file(path, images, model=model, device=device).to_json()
    except EquivalenceError as error:
        if html and error.report:
            html.write_text(page.html(error.report, f"{path}: not equal"), encoding="utf-8")
        raise
    if html:
        html.write_text(page.html(found, f"{path}: equal"), encoding="utf-8")
    show(f"Verified {path}", found if as_json else page.summary(found), as_json)


@commands.command()
def graph(
    file: Annotated[Path, typer.Argument(help="A bundle or a model.onnx.", metavar="BUNDLE|MODEL.ONNX")],
    as_json: AsJson = False,
) -> None:
    """Say what is in an exported file: inputs, outputs, layers, sub-units, sizes, metadata, hashes.

    Example: elude graph build/bundle
    """
    from elude.exporter.graph.describe import describe

    found = describe(file)
    show(str(file), found.to_json() if as_json else found.rows(), as_json)
