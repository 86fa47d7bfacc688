"""The whole way from a folder of images to a bundle: one function that calls the steps of docs/architecture.md in
order.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from elude.exporter import engines
from elude.exporter.atlas.fill_catalogue import write_atlas
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.finished_splits import split_once
from elude.exporter.export.identifiers import ALIKE, canonical, carried_over
from elude.exporter.export.library_versions import installed
from elude.exporter.export.model_card import model_card
from elude.exporter.export.work_folder import work_folder
from elude.exporter.graph.metadata import layer_infos
from elude.exporter.graph.prepare import Prepared, prepare_graph
from elude.exporter.images import ImageSource, open_images
from elude.exporter.images.screen import Screened, screen
from elude.exporter.models.device import choose_device, on_device
from elude.exporter.models.layers import Layer, find_layers, splittable
from elude.exporter.models.load import EMBEDDED, EMBEDDED_FOLDER, LoadedModel, ModelOptions, load_any
from elude.exporter.models.trial import try_out
from elude.exporter.models.walk import require_one_call
from elude.exporter.naming.at_export import names_at_export
from elude.exporter.naming.evidence import NAMES, Name
from elude.exporter.probing.probe import Probe, collect
from elude.exporter.probing.probe_store import collection_key
from elude.exporter.progress import StepProgress
from elude.exporter.scoring.activity import scan
from elude.exporter.scoring.measures import SUB_UNITS, Measures, ms_scores
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_file import CONTROL, bundle_splits, save_splits
from elude.exporter.splitting.split_layer import split_with_control
from elude.handlers.bundle.bundle import Bundle, write_bundle
from elude.handlers.bundle.output_kinds import EMBEDDING, OUTPUT_NAMES
from elude.handlers.errors import EludeError, EquivalenceError, UsageError
from elude.handlers.images.preprocess import Preprocess

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
    model: str | nn.Module | LoadedModel,
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
        model: a name, see ``elude.exporter.models.load.load_model``; any ``torch.nn.Module`` from images
            (N, channels, H, W) to one tensor. Unless timm made it, it needs ``preprocess``, and ``labels`` or ``kind``.
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
    probing = _open(images, embedded, "probe")
    held_out = evaluation is not None or embedded
    judging = _open(evaluation, embedded, "evaluation") if held_out else None
    older = None if like is None else Bundle.open(like)
    if isinstance(preprocess, Mapping):
        preprocess = Preprocess.from_json(dict(preprocess))
    chosen = None if output is None else str(output)
    options = ModelOptions(output=chosen, kind=kind, pool=pool, preprocess=preprocess, labels=labels)
    report = progress or (lambda step, done, total: None)
    device = choose_device(settings.device)
    number = min(len(probing), settings.max_images)
    job = _prepare(load_any(model, options), layers, number, settings, report, engine, workers)
    readable = _readable(job, probing, judging)
    for note in (*job.graph.notes, job.whole(), *(screened.note() for screened in readable)):
        if note:
            (notify or logging.getLogger("elude").warning)(f"{job.loaded.source.model}: {note}.")
    with work_folder(Path(out)) as folder, _kept(folder):
        with on_device(job.loaded.module, device):
            made, controls = _split(job, readable[0].images, folder)
        splits, carried = _identified(made, older)
        _write_bundle(Path(out), job, (splits, controls), readable, held_out, carried, overwrite)
    return Bundle.open(out)


def _readable(job: _Job, probing: ImageSource, judging: ImageSource | None) -> tuple[Screened, Screened]:
    """The probing and the evaluation images; of one set for both, the first are a part of the second."""
    settings, preprocess = job.settings, job.loaded.preprocess

    def screened(source: ImageSource, count: int, step: str) -> Screened:
        return screen(source, preprocess, count, strict=settings.strict, progress=job.progress(step))

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


def _prepare(
    loaded: LoadedModel,
    pattern: str,
    images: int,
    settings: ExportSettings,
    report: StepProgress,
    engine: str,
    workers: int,
) -> _Job:
    """Everything that can be refused, before anything is collected: a forward pass, the layers, the plain graph."""
    module, size = loaded.module, loaded.preprocess.input_size
    report("check", 0, 1)
    trial = try_out(module, size, splittable(module))
    layers = find_layers(module, pattern, trial, headless=loaded.kind == EMBEDDING)
    for layer in layers:
        require_one_call(layer.name, trial.calls.get(layer.name, 0))
        settings.for_instances(images * min(settings.tokens_per_image, trial.rows[layer.name]), layer.name)
    names, output = [layer.name for layer in layers], OUTPUT_NAMES[loaded.kind]
    graph = prepare_graph(
        module,
        names,
        size,
        output=output,
        opset=settings.opset,
        dtype=settings.dtype,
        dynamic_size=settings.dynamic_size,
    )
    report("check", 1, 1)
    return _Job(loaded, layers, graph, settings, report, engine, workers)


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
    job: _Job,
    made: tuple[list[LayerSplit], list[LayerSplit]],
    readable: tuple[Screened, Screened],
    held_out: bool,
    carried: dict[str, Any] | None,
    overwrite: bool,
) -> None:
    loaded, settings, (splits, controls) = job.loaded, job.settings, made
    probing, judging = (screened.images for screened in readable)
    parameters = sum(parameter.numel() for parameter in loaded.module.parameters())
    infos = layer_infos(splits, [layer.kind for layer in job.layers])
    with write_bundle(
        out, source=loaded.source, layers=infos, parameters=parameters, versions=versions(), overwrite=overwrite
    ) as folder:
        _write_graph(folder, job, splits, probing.limited(settings.verify_images))
        save_splits(controls, folder / CONTROL)
        with on_device(loaded.module, choose_device(settings.device)):
            measures = _measure(job, splits, controls, judging, held_out)
            _write_catalogue(folder, job, splits, measures, probing.limited(settings.atlas_images))
        facts = {"probing_images": len(probing), **asdict(settings), **settings.resolved()}
        unreadable = {"probing": readable[0].unreadable, "evaluation": readable[1].unreadable}
        write_json(folder / "measures.json", measures.to_json() | {"settings": facts, "unreadable_images": unreadable})
        if carried is not None:
            write_json(folder / IDENTIFIERS, carried)
        (folder / "README.md").write_text(model_card(loaded, infos, parameters, measures, facts), encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that shape a bundle."""
    return {"python": platform.python_version(), **installed(_LIBRARIES)}


def _open(images: str | Path | ImageSource | None, embedded: bool, own: str) -> ImageSource:
    if isinstance(images, ImageSource):
        return images
    if images is None and not embedded:
        raise UsageError(
            f"No images are given, and only the model {EMBEDDED!r} brings its own.",
            "Give a folder, tar, list or data set.",
        )
    return open_images(EMBEDDED_FOLDER / f"{own}.tar" if images is None else images)


@dataclass(frozen=True)
class _Job:
    """What every step needs."""

    loaded: LoadedModel
    layers: list[Layer]
    graph: Prepared
    settings: ExportSettings
    report: StepProgress
    engine: str
    workers: int

    def whole(self) -> str:
        """A note on layers that can only stay as they are; empty without any."""
        names = [layer.name for layer in self.layers if layer.inputs == 1]
        return f"the units of {', '.join(names)} have one input each (depthwise), so they stay whole" if names else ""

    def progress(self, step: str) -> Callable[[int, int], None]:
        return lambda done, total: self.report(step, done, total)


def _split(job: _Job, probing: ImageSource, folder: Path) -> tuple[list[LayerSplit], list[LayerSplit]]:
    """The splits of all layers, and their controls."""
    settings, engine, workers = job.settings, job.engine, job.workers
    probes = collect(
        job.loaded.module,
        job.layers,
        probing,
        job.loaded.preprocess,
        tokens_per_image=settings.tokens_per_image,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=job.progress("probe"),
        folder=folder / "probe",
        engine=engine,
        workers=workers,
    )

    collection = collection_key(folder / "probe")

    def split(layer: Layer, probe: Probe) -> tuple[LayerSplit, LayerSplit]:
        chosen, progress = settings.for_instances(len(probe.z), layer.name), job.progress(f"split {layer.name}")
        key = {"collection": collection, "layer": layer.name, "settings": asdict(chosen), "versions": versions()}
        return split_once(
            folder / f"{layer.name}.split.safetensors",
            key,
            lambda: split_with_control(layer, probe, chosen, progress, workers=workers, engine=engine),
        )

    # pop: a layer's probe is freed once it is split
    both = [split(layer, probes.pop(layer.name)) for layer in job.layers]
    return [split for split, _ in both], [control for _, control in both]


def _write_graph(folder: Path, job: _Job, splits: list[LayerSplit], images: ImageSource) -> None:
    """Everything that decides behaviour but the catalogue, checked."""
    from elude.exporter.graph import emit
    from elude.exporter.rewrite import graft
    from elude.exporter.verify import verify

    module, preprocess, source = job.loaded.module, job.loaded.preprocess, job.loaded.source
    path = folder / "model.onnx"
    job.report("graph", 0, 1)
    emit(
        module,
        splits,
        path,
        layers=job.layers,
        input_size=preprocess.input_size,
        source=source,
        preprocess=preprocess,
        prepared=job.graph,
        kind=job.loaded.kind,
    )
    job.report("graph", 1, 1)
    job.report("verify", 0, 1)
    _, pixel_values = next(images.batches(preprocess, len(images)))
    equivalence = verify(module, graft(module, splits), path, splits, job.layers, pixel_values, images=len(images))
    job.report("verify", 1, 1)
    save_splits(splits, folder / "disentangled.safetensors")
    write_json(folder / "equivalence.json", equivalence.to_json())
    write_json(folder / "preprocess.json", preprocess.to_json())
    write_json(folder / "labels.json", None if job.loaded.labels is None else list(job.loaded.labels))


def _measure(
    job: _Job, splits: list[LayerSplit], controls: list[LayerSplit], images: ImageSource, held_out: bool
) -> Measures:
    return ms_scores(
        job.loaded.module,
        job.layers,
        {split.layer: split for split in splits},
        {control.layer: control for control in controls},
        images=images,
        preprocess=job.loaded.preprocess,
        held_out=held_out,
        top=job.settings.measure_top,
        batch_size=job.settings.batch_size,
        progress=job.progress("measure"),
    )


def _write_catalogue(
    folder: Path, job: _Job, splits: list[LayerSplit], measures: Measures, images: ImageSource
) -> None:
    preprocess = job.loaded.preprocess
    families = {SUB_UNITS: {split.layer: split for split in splits}}
    size, progress = job.settings.batch_size, job.progress("atlas")
    activity = scan(job.loaded.module, job.layers, families, images, preprocess, batch_size=size, progress=progress)
    names: dict[int, Name] = {}
    if job.settings.names == "labels":
        names, evidence = names_at_export(splits, activity, images)
        write_json(folder / NAMES, evidence)
    path = folder / "catalogue.sqlite"
    write_atlas(
        path, splits, activity, measures, images=images, preprocess=preprocess, tops=job.settings.tops, names=names
    )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
