"""All measures of a finished bundle, on any images: what ``elude measure`` prints and stores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from elude.exporter.atlas.held_out import HELD_OUT, held_out_concepts
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.images import ImageSource
from elude.exporter.models.device import choose_device, on_device
from elude.exporter.models.layers import Layer, find_layers
from elude.exporter.models.load import LoadedModel, load_model
from elude.exporter.models.original import load_original
from elude.exporter.models.tokens import to_tokens
from elude.exporter.models.walk import Calls, walk
from elude.exporter.probing.probe import collect
from elude.exporter.progress import StepProgress
from elude.exporter.rewrite.layer import SplitLayer
from elude.exporter.scoring.activity import Activity
from elude.exporter.scoring.external_encoder import embed
from elude.exporter.scoring.measures import ms_scores
from elude.exporter.splitting.fair_control import random_control
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_file import CONTROL, bundle_splits, load_splits
from elude.exporter.splitting.split_layer import split_layer
from elude.exporter.splitting.stability import stability
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.images.preprocess import Preprocess

R2_IMAGES = 64  # all tokens of these; the split is exact, so more would only repeat it


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured.

    Attributes:
        held_out: whether the images were not among the probing images; only noted.
        encoder: a model of ``elude.exporter.models.load.load_model`` in whose space the images are
            compared too; None: only in the layer's own.
        seeds: splits that are made anew from these images, each from other tokens, to see how alike they are; 0: none.
        max_images: images used, at most.
        top: strongest images per MS-Score; None: as at the export.
        device: where torch computes: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU if there is one.
    """

    held_out: bool = False
    encoder: str | None = None
    seeds: int = 2
    max_images: int = 5_000
    top: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.seeds < 0 or self.seeds == 1:
            raise UsageError(f"seeds is {self.seeds}.", "Give 0 for no measure of stability, or at least 2 to compare.")


def measure_bundle(
    bundle: Bundle,
    images: ImageSource,
    settings: MeasureSettings = MeasureSettings(),
    *,
    progress: StepProgress | None = None,
    model: str | nn.Module | LoadedModel | None = None,
) -> Bundle:
    """Measure a bundle and store the result in its ``measures.json``, in place of what was there.

    Per layer: MS-Scores, class purity and dead features of units, sub-units and the control with
        as many sub-units; the expansion
    factor; R² of the units as sums of their sub-units; stability over token seeds.

    Args:
        bundle: of a model that can still be loaded.
        images: to measure on.
        settings: see ``MeasureSettings``.
        progress: called with (step, done, of how many).
        model: the original, where the bundle cannot load it by name (elude.exporter.models.original).

    Returns:
        the bundle with its new file.

    Raises:
        EvaluationError: the model has different weights from those the bundle was made from.
        UsageError: the images are too few, or a model cannot be loaded.
    """
    report = progress or (lambda step, done, total: None)
    preprocess = Preprocess.from_json(bundle.json("preprocess.json"))
    loaded, splits = load_original(bundle.manifest.source, preprocess, model), bundle_splits(bundle)
    if loaded.source.weights_sha256 != bundle.manifest.source.weights_sha256:
        raise EvaluationError(
            f"{loaded.source.model} has different weights from those {bundle.root} was made from.",
            "Bring the old weights back, or export again.",
        )
    layers = [find_layers(loaded.module, split.layer)[0] for split in splits]
    stored = bundle.json("measures.json")
    export = _export_settings(stored.get("settings", {}))
    images = images.limited(settings.max_images)
    device, embeddings = choose_device(settings.device), None
    if settings.encoder is not None:
        encoder = load_model(settings.encoder)
        with on_device(encoder.module, device):
            embeddings = embed(encoder, images, progress=partial(report, "encode"))
    with on_device(loaded.module, device):
        scores = ms_scores(
            loaded.module,
            layers,
            {split.layer: split for split in splits},
            _controls(bundle, splits, export.seed),
            images=images,
            preprocess=loaded.preprocess,
            held_out=settings.held_out,
            top=settings.top or export.measure_top,
            batch_size=export.batch_size,
            progress=partial(report, "measure"),
            embeddings=embeddings,
        )
        r2 = _r2(loaded, layers, splits, images)
        stable = _stability(loaded, layers, images, export, settings.seeds, report)
    found = scores.to_json()
    for split in splits:
        layer = found["layers"][split.layer]
        layer |= {"expansion_factor": split.expansion_factor, "r2": r2[split.layer]}
        layer |= {"stability": stable[split.layer]} if stable else {}
    found |= {"encoder": settings.encoder, "settings": stored.get("settings", {})}
    added = {"measures.json": found}
    if settings.held_out and bundle.has("catalogue.sqlite"):
        activity = [scores.activity[split.layer] for split in splits]
        added[HELD_OUT] = _held_out(bundle, activity, images, preprocess)
    return bundle.add(
        {name: (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode() for name, value in added.items()}
    )


def _held_out(
    bundle: Bundle, activity: Sequence[Activity], images: ImageSource, preprocess: Preprocess
) -> dict[str, Any]:
    """What the images show of the concepts."""
    catalogue = Catalogue.of(bundle)
    try:
        return held_out_concepts(catalogue.concepts(), activity, images, preprocess).to_json()
    finally:
        catalogue.close()


def facts(measures: Mapping[str, Any]) -> dict[str, str | float | int]:
    """The measures in rows for a person; means over the units that were split and their sub-units."""
    where = "held out" if measures["held_out"] else "not known to be held out"
    rows: dict[str, str | float | int] = {"images": f"{measures['images']} ({where}), top {measures['top']}"}
    for layer, of in measures["layers"].items():
        own: dict[str, str | float | int] = {
            "expansion factor": of["expansion_factor"],
            "R² of units as sums of sub-units": of["r2"],
        }
        for measure, title in _TITLES.items():
            values = [(name, of[family].get(f"{measure}_mean_of_split_units")) for family, name in _FAMILIES.items()]
            if any(value is not None for _, value in values):
                own[title] = ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in values)
        floor = [score for score in of["random_pairs"].values() if score is not None]
        if len(floor) == 2:
            own["MS-Score of random pairs of images"] = f"{floor[0]:.3f}, centred {floor[1]:.3f}"
        own["dead or without score"] = ", ".join(
            f"{name} {of[family]['left_out']} of {of[family]['features']}" for family, name in _FAMILIES.items()
        )
        if "stability" in of and of["stability"]["cosine"] is not None:
            each = of["stability"]
            own["stability over token seeds"] = (
                f"cosine {each['cosine']:.3f}; {100 * each['same_count']:.0f} % of {each['units']} units "
                "with as many sub-units"
            )
        rows |= {f"{layer}: {name}": value for name, value in own.items()}
    return rows


_FAMILIES = {"units": "units", "sub_units": "sub-units", "random": "control"}
_TITLES = {
    "ms": "MS-Score",
    "centred": "MS-Score, centred",
    "external": "MS-Score by the encoder",
    "external_centred": "MS-Score by the encoder, centred",
    "purity": "class purity",
}


def _controls(bundle: Bundle, splits: Sequence[LayerSplit], seed: int) -> dict[str, LayerSplit]:
    """The fair controls that were made with the splits; of an older bundle, which has none, permuted masks."""
    if bundle.has(CONTROL):
        return {control.layer: control for control in load_splits(bundle.path(CONTROL))}
    return {split.layer: random_control(split, seed) for split in splits}


def _export_settings(stored: Mapping[str, Any]) -> ExportSettings:
    """How the bundle was made; what an older bundle does not say is the default."""
    known = {field.name for field in fields(ExportSettings)}
    return ExportSettings(**{name: value for name, value in stored.items() if name in known})


def _r2(
    loaded: LoadedModel, layers: Sequence[Layer], splits: Sequence[LayerSplit], images: ImageSource
) -> dict[str, float]:
    """1 - |z - sum of sub-units|² / |z - mean z|² of each layer, over all tokens of some images."""
    rows = {split.layer: SplitLayer(layer.module, split) for layer, split in zip(layers, splits, strict=True)}
    errors = {layer.name: 0.0 for layer in layers}
    outputs: dict[str, list[NDArray[np.float64]]] = {layer.name: [] for layer in layers}

    def visit(_start: int, batch: int, calls: Calls) -> None:
        for layer in layers:
            x, z = calls[layer.name]
            merged = rows[layer.name].merge(rows[layer.name].activations(x).double())
            errors[layer.name] += float((merged - z).square().sum())
            outputs[layer.name].append(to_tokens(z, layer, batch).double().flatten(0, 1).cpu().numpy())

    walk(loaded.module, layers, images.limited(R2_IMAGES), loaded.preprocess, visit, batch_size=16)
    result = {}
    for name, parts in outputs.items():
        z = np.concatenate(parts)
        spread = float(np.square(z - z.mean(axis=0)).sum())
        result[name] = 1.0 if spread == 0 else 1 - errors[name] / spread
    return result


def _stability(
    loaded: LoadedModel,
    layers: list[Layer],
    images: ImageSource,
    export: ExportSettings,
    seeds: int,
    report: StepProgress,
) -> dict[str, dict[str, float | int | None]]:
    made: dict[str, list[LayerSplit]] = {layer.name: [] for layer in layers}
    for seed in range(seeds):
        probes = collect(
            loaded.module,
            layers,
            images,
            loaded.preprocess,
            tokens_per_image=export.tokens_per_image,
            seed=export.seed + seed,
            batch_size=export.batch_size,
            progress=partial(report, f"probe, seed {seed}"),
        )
        for layer in layers:
            probe = probes.pop(layer.name)
            chosen = replace(export, seed=export.seed + seed).for_instances(len(probe.z), layer.name)
            made[layer.name].append(split_layer(layer, probe, chosen)[0])
            report(f"split, seed {seed}", layers.index(layer) + 1, len(layers))
    return {name: stability(splits).to_json() for name, splits in made.items()} if seeds else {}
