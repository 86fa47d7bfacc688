"""The whole way from a folder of images to a bundle: one function that calls the steps of docs/architecture.md in
order.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elude.exporter import engines
from elude.exporter.atlas.fill_catalogue import write_atlas
from elude.exporter.atlas.held_out import HELD_OUT, held_out_concepts
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.finished_splits import split_once
from elude.exporter.export.given_images import open_given
from elude.exporter.export.identifiers import ALIKE, canonical, carried_over
from elude.exporter.export.job import Job, Run
from elude.exporter.export.library_versions import installed
from elude.exporter.export.model_card import model_card
from elude.exporter.export.onnx_job import is_onnx, prepare_onnx
from elude.exporter.export.work_folder import work_folder
from elude.exporter.graph.metadata import layer_infos
from elude.exporter.images import ImageSource
from elude.exporter.images.screen import Screened, screen
from elude.exporter.models.options import EMBEDDED, ModelOptions, parse_address
from elude.exporter.naming.at_export import names_at_export
from elude.exporter.naming.evidence import NAMES, Name
from elude.exporter.probing.probe_store import Probe, collection_key
from elude.exporter.progress import StepProgress
from elude.exporter.scoring.measures import Measures
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_file import CONTROL, bundle_splits, save_splits
from elude.exporter.splitting.split_layer import split_layer
from elude.exporter.weighted_layer import WeightedLayer
from elude.handlers.bundle.bundle import MODEL, Bundle, write_bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.errors import EludeError, EquivalenceError, UsageError
from elude.handlers.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

    from elude.exporter.models.loaded import LoadedModel

IDENTIFIERS = "identifiers.json"
_LIBRARIES = (
    "elude",
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "scikit-learn",
    "pillow",
)


def export(
    model: str | Path | nn.Module | LoadedModel,
    images: str | Path | ImageSource | None,
    layers: str = "last",
    out: str | Path = "bundle",
    settings: ExportSettings = ExportSettings(),
    *,
    evaluation: str | Path | ImageSource | None = None,
    overwrite: bool = False,
    progress: StepProgress | None = None,
    engine: str = engines.LOCAL,
    workers: int = 0,
    notify: Callable[[str], None] | None = None,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    kind: str | None = None,
    output: str | int | None = None,
    pool: str | None = None,
    like: str | Path | None = None,
) -> Bundle:
    """Split a model's layers and write the bundle; a failed check or any other error leaves none.

    What can be refused is refused first: the layers are found, the plain graph is exported and checked.
    Then activations and splits are collected in a folder ``OUT.partial`` beside the bundle, which is removed
    when the bundle is in place. After a kill or an error the same call resumes from there, and gives the same bytes.

    Args:
        model: a name, see ``elude.exporter.models.load.load_model``; a ``.onnx`` file (docs/onnx.md); any
            ``torch.nn.Module`` from images (N, channels, H, W) to one tensor. A file, and a module that timm did not
            make, need ``preprocess``, and ``labels`` or ``kind``.
        images: the probing set, an address as ``elude.exporter.images.open_images`` takes it; None:
            the embedded one, for the embedded model only.
        layers: see ``elude.exporter.models.layers.find_layers``.
        out: where the bundle goes.
        settings: see ``ExportSettings``.
        evaluation: images that were not probed, for the MS-Score; None: the embedded ones for the
            embedded model, else the probing set, and ``measures.json`` then says that they were not
            held out.
        overwrite: replace a bundle at ``out``.
        progress: called with (step, done, of how many).
        engine: ``local``, or ``ray`` to collect and to cluster on a Ray cluster
            (elude.exporter.engines); the bytes are the same.
        workers: processes that cluster; 0 is threads of this process. Of ``ray``: processes of a
            cluster that is started here.
        notify: called with sentences that the user should read; by default they are logged as warnings.
        preprocess: how images become the model's input, where its source does not say so; an object or the content
            of a ``preprocess.json``.
        labels: names of the outputs, in order or by number.
        kind: what the outputs mean: ``classes``, ``multi-label``, ``regression`` or ``embedding``.
        output: of a model with several outputs, the name or position of the one to keep.
        pool: of an output with places, (N, T, C) or (N, C, H, W): ``mean`` over them, or the ``first`` token.
        like: an older bundle of the same architecture whose identifiers are carried over; ``identifiers.json`` says
            which ones were kept.

    Raises:
        UsageError, ImageError, UnsupportedLayerError: the arguments cannot be used.
        EquivalenceError: the rewritten model does not equal the original.
    """
    if Path(out).exists() and not overwrite:
        raise UsageError(f"{out} already exists.", "Choose another place or allow to overwrite it.")
    engines.check(engine, workers)
    embedded = model == EMBEDDED
    probing = open_given(images, embedded, "probe")
    held_out = evaluation is not None or embedded
    judging = open_given(evaluation, embedded, "evaluation") if held_out else None
    older = None if like is None else Bundle.open(like)
    if isinstance(preprocess, Mapping):
        preprocess = Preprocess.from_json(dict(preprocess))
    if not isinstance(preprocess, (Preprocess, type(None))):
        raise UsageError(
            f"Preprocessing cannot be made of {type(preprocess).__name__}, whose steps a server could not repeat.",
            "Say them: {'input_size': [3, 224, 224], 'interpolation': 'bilinear', 'crop_pct': 0.875, "
            "'crop_mode': 'center', 'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]}.",
        )
    chosen = None if output is None else str(output)
    options = ModelOptions(output=chosen, kind=kind, pool=pool, preprocess=preprocess, labels=labels)
    run = Run(settings, progress or (lambda step, done, total: None), engine, workers)
    job = _job(model, options, layers, min(len(probing), settings.max_images), run)
    readable = _readable(job, run, probing, judging)
    for note in (*job.notes, _whole(job), *(screened.note() for screened in readable)):
        if note:
            (notify or logging.getLogger("elude").warning)(f"{job.model.source.model}: {note}.")
    with work_folder(Path(out)) as folder, _kept(folder):
        with job.computing():
            made, controls = _split(job, run, readable[0].images, folder)
        splits, carried = _identified(made, older)
        _write_bundle(Path(out), job, run, (splits, controls), readable, held_out, carried, overwrite)
    return Bundle.open(out)


def _job(model: str | Path | nn.Module | LoadedModel, options: ModelOptions, layers: str, images: int, run: Run) -> Job:
    """Read or load the model and check everything that can be refused."""
    if is_onnx(model):
        name, said = parse_address(str(model))
        return prepare_onnx(Path(name), options.over(said), layers, images, run)
    from elude.exporter.export.torch_job import prepare_torch
    from elude.exporter.models.load import load_any

    loaded = load_any(str(model) if isinstance(model, Path) else model, options)
    return prepare_torch(loaded, layers, images, run)


def _readable(job: Job, run: Run, probing: ImageSource, judging: ImageSource | None) -> tuple[Screened, Screened]:
    """The probing and the evaluation images; of one set for both, the first are a part of the second."""
    settings, preprocess = run.settings, job.model.preprocess

    def screened(source: ImageSource, count: int, step: str) -> Screened:
        return screen(source, preprocess, count, strict=settings.strict, progress=run.progress(step))

    first = screened(probing, settings.max_images, "images")
    if judging is None:
        return first, Screened(first.images.limited(settings.measure_images), {})
    return first, screened(judging, settings.measure_images, "evaluation images")


def _identified(splits: list[LayerSplit], older: Bundle | None) -> tuple[list[LayerSplit], dict[str, Any] | None]:
    """Number the sub-units: canonically, and like those of an older bundle where it has the layer too."""
    splits = [canonical(split) for split in splits]
    if older is None:
        return splits, None
    before = {split.layer: split for split in bundle_splits(older)}
    pairs = [carried_over(split, before[split.layer]) if split.layer in before else (split, None) for split in splits]
    layers = {split.layer: carried.to_json() for split, carried in pairs if carried is not None}
    return [split for split, _ in pairs], {"like": older.artefact_sha256, "alike": ALIKE, "layers": layers}


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """After an error, say that what was collected is still there; the report of a failed check lies beside it."""
    try:
        yield
    except EludeError as error:
        if isinstance(error, EquivalenceError) and error.report:
            write_json(folder / "equivalence.json", error.report)
        if (folder / "probe" / "state.json").is_file():
            remedy = f"{error.remedy} What was collected is in {folder}: the same call resumes from it."
            error.remedy, error.args = remedy.strip(), (f"{error.message} {remedy}".strip(),)
        raise


def _write_bundle(
    out: Path,
    job: Job,
    run: Run,
    made: tuple[list[LayerSplit], list[LayerSplit]],
    readable: tuple[Screened, Screened],
    held_out: bool,
    carried: dict[str, Any] | None,
    overwrite: bool,
) -> None:
    settings, (splits, controls) = run.settings, made
    probing, judging = (screened.images for screened in readable)
    infos = layer_infos(splits, [layer.kind for layer in job.layers])
    with write_bundle(
        out,
        source=job.model.source,
        layers=infos,
        parameters=job.model.parameters,
        versions=versions(),
        overwrite=overwrite,
    ) as folder:
        _write_graph(folder, job, run, splits, probing.limited(settings.verify_images))
        save_splits(controls, folder / CONTROL)
        with job.computing():
            measures = job.measure(folder / MODEL, splits, controls, judging, held_out=held_out)
            _write_catalogue(folder, job, run, splits, measures, probing.limited(settings.atlas_images))
        if held_out:
            _write_held_out(folder, job, splits, measures, judging)
        facts = {"probing_images": len(probing), **asdict(settings), **settings.resolved()}
        unreadable = {"probing": readable[0].unreadable, "evaluation": readable[1].unreadable}
        write_json(folder / "measures.json", measures.to_json() | {"settings": facts, "unreadable_images": unreadable})
        if carried is not None:
            write_json(folder / IDENTIFIERS, carried)
        (folder / "README.md").write_text(model_card(job, infos, measures, facts), encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that shape a bundle."""
    return {"python": platform.python_version(), **installed(_LIBRARIES)}


def _whole(job: Job) -> str:
    """A note on layers that can only stay as they are; empty without any."""
    names = [layer.name for layer in job.layers if layer.inputs == 1]
    return f"the units of {', '.join(names)} have one input each (depthwise), so they stay whole" if names else ""


def _split(job: Job, run: Run, probing: ImageSource, folder: Path) -> tuple[list[LayerSplit], list[LayerSplit]]:
    """The splits of all layers, and their controls."""
    settings, engine, workers = run.settings, run.engine, run.workers
    probes = job.collect(probing, folder / "probe")
    collection = collection_key(folder / "probe")

    def split(layer: WeightedLayer, probe: Probe) -> tuple[LayerSplit, LayerSplit]:
        chosen, progress = settings.for_instances(len(probe.z), layer.name), run.progress(f"split {layer.name}")
        key = {"collection": collection, "layer": layer.name, "settings": asdict(chosen), "versions": versions()}
        return split_once(
            folder / f"{layer.name}.split.safetensors",
            key,
            lambda: split_layer(layer, probe, chosen, progress, workers=workers, engine=engine),
        )

    # pop: a layer's probe is freed once it is split
    both = [split(layer, probes.pop(layer.name)) for layer in job.layers]
    return [split for split, _ in both], [control for _, control in both]


def _write_graph(folder: Path, job: Job, run: Run, splits: list[LayerSplit], images: ImageSource) -> None:
    """Everything that decides behaviour but the catalogue, checked."""
    with run.step("graph"):
        job.write_graph(folder / MODEL, splits)
    with run.step("verify"):
        _, pixels = next(images.batches(job.model.preprocess, len(images)))
        equivalence = job.verify(folder / MODEL, splits, pixels)
    save_splits(splits, folder / "disentangled.safetensors")
    write_json(folder / "equivalence.json", equivalence.to_json())
    write_json(folder / "preprocess.json", job.model.preprocess.to_json())
    write_json(folder / "labels.json", None if job.model.labels is None else list(job.model.labels))


def _write_catalogue(
    folder: Path, job: Job, run: Run, splits: list[LayerSplit], measures: Measures, images: ImageSource
) -> None:
    activity = job.activity(folder / MODEL, splits, images)
    names: dict[int, Name] = {}
    if run.settings.names == "labels":
        names, evidence = names_at_export(splits, activity, images)
        write_json(folder / NAMES, evidence)
    path, tops = folder / "catalogue.sqlite", run.settings.tops
    write_atlas(
        path, splits, activity, measures, images=images, preprocess=job.model.preprocess, tops=tops, names=names
    )


def _write_held_out(folder: Path, job: Job, splits: list[LayerSplit], measures: Measures, images: ImageSource) -> None:
    catalogue = Catalogue(folder / "catalogue.sqlite")
    try:
        activity = [measures.activity[split.layer] for split in splits]
        concepts = held_out_concepts(catalogue.concepts(), activity, images, job.model.preprocess)
    finally:
        catalogue.close()
    write_json(folder / HELD_OUT, concepts.to_json())


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
