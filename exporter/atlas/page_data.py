"""All that the pages show, read from a bundle and, if there are images, from running them through its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.exporter.atlas.effects import class_effects
from elude.exporter.atlas.relations import Pair, Together, shared_inputs, together
from elude.exporter.atlas.token_places import Layout
from elude.exporter.naming.concept_portraits import portraits as portraits_of
from elude.exporter.naming.concept_portraits import strengths
from elude.exporter.naming.concepts import group
from elude.exporter.scoring.bundle_activity import BundleActivity
from elude.exporter.scoring.split_features import of_split_units
from elude.exporter.splitting.split_file import bundle_splits
from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.catalogue import Catalogue, ConceptPortrait, ConceptRow, ImageRow, SubUnitRow, UnitRow

RARE = 1e-4  # share of instances below which a sub-unit counts as hardly active


@dataclass(frozen=True)
class AtlasContent:
    """Everything of one bundle.

    Attributes:
        model: its name.
        facts: short facts for the foot of the pages.
        layers: split layers.
        units, sub_units: rows of the catalogue, in order.
        images: by number.
        concepts: rows of the catalogue, in order; where it has none and there are images, grouped from these.
        portraits: of concepts, by number, likewise.
        layout: where tokens lie on the thumbnails, if known.
        random: MS-Scores of the random control's parts of units that were split, if measured.
        together: what fires together, if there were images.
        shared: sub-units of unlike units that take the same inputs.
        effects, concept_effects: float32 (sub-units, classes) and (concepts, classes), if measured, on
            ``effect_images`` images each.
        classes: their names.
    """

    model: str
    facts: Mapping[str, str]
    layers: tuple[LayerInfo, ...]
    units: Sequence[UnitRow]
    sub_units: Sequence[SubUnitRow]
    images: Mapping[int, ImageRow]
    concepts: Sequence[ConceptRow]
    portraits: Mapping[int, ConceptPortrait]
    layout: Layout | None
    random: Sequence[float]
    together: Together | None
    shared: Sequence[Pair]
    effects: NDArray[np.float32] | None
    concept_effects: NDArray[np.float32] | None
    classes: Sequence[str]
    effect_images: int

    @property
    def dead(self) -> list[SubUnitRow]:
        """Sub-units that were never above 0."""
        return [row for row in self.sub_units if row.maximum <= 0]

    @property
    def rare(self) -> list[SubUnitRow]:
        """Sub-units above 0 on less than one in 10,000 instances, but not never."""
        return [row for row in self.sub_units if row.maximum > 0 and row.active < RARE]

    def names(self) -> list[tuple[str, int]]:
        """Names and how many sub-units have each, most frequent first."""
        counts = Counter(row.name for row in self.sub_units if row.name is not None)
        return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def gather(
    bundle: Bundle,
    activity: BundleActivity | None = None,
    effect_images: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> AtlasContent:
    """Read a bundle, and measure what needs images.

    Args:
        bundle: to read.
        activity: of it, for what fires together and for effects.
        effect_images: strongest images on which each sub-unit and each concept is ablated.
        progress: called with (step, done, of how many).

    Raises:
        BundleError: it has no catalogue.
    """
    catalogue = Catalogue.of(bundle)
    try:
        units, sub_units, concepts = catalogue.units(), catalogue.sub_units(), list(catalogue.concepts())
        images = {image.id: image for image in catalogue.images()}
        portraits = {portrait.number: portrait for portrait in catalogue.portraits()}
    finally:
        catalogue.close()
    if activity is not None and not concepts:
        concepts = group(activity.peak, {row.index: row.name for row in sub_units}, activity.classes)
    if activity is not None and not portraits:  # a bundle of an earlier version: it has no images of concepts either
        nowhere = np.zeros(activity.peak.shape, np.int64)
        portraits = {portrait.number: portrait for portrait in portraits_of(activity.peak, nowhere, concepts, 0)}
    effects = concept_effects = None
    if activity is not None:
        effects = class_effects(bundle, activity, effect_images, progress=_step(progress, "class effects"))
    if activity is not None and effects is not None and concepts:
        concept_effects = class_effects(
            bundle,
            activity,
            effect_images,
            subjects=[concept.members for concept in concepts],
            strength=strengths(activity.peak, concepts),
            progress=_step(progress, "effects of concepts"),
        )
    layers, measures = bundle.manifest.layers, bundle.json("measures.json") if bundle.has("measures.json") else {}
    random = of_split_units(measures, layers, "random", "ms")
    tokens, size = measures.get("tokens"), bundle.json("preprocess.json")["input_size"]
    labels = bundle.json("labels.json") if bundle.has("labels.json") else None
    count = 0 if effects is None else effects.shape[1]
    return AtlasContent(
        model=bundle.manifest.source.model,
        facts={
            "artefact": bundle.artefact_sha256,
            "weights": bundle.manifest.source.weights_sha256,
            "layers": ", ".join(_names(layers)),
        },
        layers=layers,
        units=units,
        sub_units=sub_units,
        images=images,
        concepts=concepts,
        portraits=portraits,
        layout=Layout(size[1], size[2], tokens) if tokens else None,
        random=random,
        together=None if activity is None else relate(activity.peak, sub_units),
        shared=shared_inputs(bundle_splits(bundle)) if bundle.has("disentangled.safetensors") else (),
        effects=effects,
        concept_effects=concept_effects,
        classes=labels
        if isinstance(labels, list) and len(labels) == count
        else [str(number) for number in range(count)],
        effect_images=effect_images,
    )


def relate(peak: NDArray[np.float32], sub_units: Sequence[SubUnitRow]) -> Together:
    """What fires together, of sub-units given by their rows."""
    numbers: dict[tuple[str, int], int] = {}
    parent = np.array([numbers.setdefault((row.layer, row.unit), len(numbers)) for row in sub_units])
    return together(peak, parent, np.array([row.active for row in sub_units]))


def class_lines(effects: NDArray[np.float32], classes: Sequence[str], shown: int = 3) -> list[dict[str, Any]]:
    """The classes that a sub-unit raises most and those that it lowers most, with the length of each bar in percent."""
    if not np.isfinite(effects).all():
        return []
    order = np.argsort(-effects, kind="stable")
    chosen = list(dict.fromkeys([*order[:shown].tolist(), *order[-shown:].tolist()]))
    largest = float(np.abs(effects).max()) or 1.0
    return [
        {"name": classes[i], "value": float(effects[i]), "part": 100 * abs(float(effects[i])) / largest} for i in chosen
    ]


def _step(progress: Callable[[str, int, int], None] | None, step: str) -> Callable[[int, int], None] | None:
    return None if progress is None else partial(progress, step)


def _names(layers: Sequence[LayerInfo]) -> list[str]:
    return [layer.name for layer in layers]
