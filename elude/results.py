"""What the calls of a loaded model return: frozen dataclasses that a notebook shows as pictures.

Each holds the answer that a server gives to the same request, as ``to_dict()``; its fields are that
answer, typed.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude import result_html as html
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.images.read_pixels import picture, read_pixels
from elude.instead import no_attribute

_Row = TypeVar("_Row")


_DRAWN = "A notebook draws the result that ends a cell."
_INSTEAD = {
    **dict.fromkeys(("show", "plot", "display", "draw", "imshow"), _DRAWN),
    **dict.fromkeys(("to_json", "json", "dict", "as_dict", "asdict"), "Write to_dict()."),
}


class Scene:
    """What pictures are drawn from: the image as it came, how the model crops it, and the catalogue's examples.

    Not part of an answer: it is left behind when a result is sent to another process, which shows it without pictures.
    """

    def __init__(
        self, image: bytes | None = None, preprocess: Preprocess | None = None, catalogue: Catalogue | None = None
    ) -> None:
        self._image, self._preprocess, self._catalogue = image, preprocess, catalogue

    def __deepcopy__(self, memo: dict[int, Any]) -> Scene:
        return self

    def __reduce__(self) -> tuple[type[Scene], tuple[()]]:
        return Scene, ()

    def picture(self) -> Image.Image | None:
        """The image as the model sees it."""
        if self._image is None or self._preprocess is None:
            return None
        return picture(read_pixels(self._image, "image", self._preprocess, html.LIMITS))

    def examples(self, identifier: str, count: int) -> list[bytes]:
        """PNG files of the strongest probing images of a sub-unit."""
        if self._catalogue is None:
            return []
        tops = self._catalogue.sub_unit_by_id(identifier).tops[:count]
        return [self._catalogue.image(top.image).png for top in tops]


@dataclass(frozen=True, kw_only=True)
class Result:
    """An answer; see ``to_dict``."""

    answer: Mapping[str, Any] = field(repr=False)
    scene: Scene = field(default=Scene(), repr=False, compare=False)
    _instead: ClassVar[Mapping[str, str]] = {}

    def to_dict(self) -> dict[str, Any]:
        """The JSON that a server answers the same request with."""
        return copy.deepcopy(dict(self.answer))

    if not TYPE_CHECKING:  # so that an editor still marks them

        def __getattr__(self, name):
            raise no_attribute(type(self).__name__, name, _INSTEAD | dict(type(self)._instead))


@dataclass(frozen=True)
class HeatMap:
    """Where on the image a sub-unit is active: ``activations`` (rows, columns), float32, 0 where it is not."""

    rows: int
    columns: int
    maximum: float
    values: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def activations(self) -> NDArray[np.float32]:
        return np.asarray(self.values, np.float32) * np.float32(self.maximum / 255)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> HeatMap:
        grid = html.read_png(base64.b64decode(value["png"])) if "png" in value else value["values"]
        return cls(value["rows"], value["columns"], value["maximum"], tuple(tuple(row) for row in grid))


@dataclass(frozen=True)
class Activation:
    """One sub-unit on one image.

    Attributes:
        id: its identifier, as ``steer`` and ``feature`` take it.
        name: what it stands for; None while unnamed.
        activation: the largest over the image's tokens, at ``token``.
        share: part of its unit's weights that it holds alone or with others.
        effect: what it adds to the class's logit; None unless asked for with ``by="effect"``.
        heat_map: where it is active; None unless asked for.
    """

    id: str
    name: str | None
    activation: float
    token: int
    share: float | None = None
    effect: float | None = None
    heat_map: HeatMap | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Activation:
        drawn = HeatMap.from_json(row["heat_map"]) if "heat_map" in row else None
        return _pick(cls, {**row, "heat_map": drawn})


@dataclass(frozen=True)
class SubUnit:
    """One sub-unit as the catalogue describes it.

    Attributes:
        active: fraction of the probing images that activate it.
        mean: of its activation over the probing images.
        maximum: largest activation over the probing images.
        ms_score: how alike the images are that activate it, from -1 to 1; None if not measured.
        relative: of a search by image, its activation there over ``maximum``.
    """

    id: str
    name: str | None
    active: float
    mean: float
    maximum: float
    ms_score: float | None = None
    name_method: str | None = None
    name_score: float | None = None
    relative: float | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> SubUnit:
        return _pick(cls, row)


@dataclass(frozen=True)
class Concept:
    """A set of sub-units that answer to the same images.

    Attributes:
        members: how many they are; ``Model.concept(id)`` gives them.
        agreement: mean correlation of their activations with the mean of them.
        purity: part of the images where they are strongest that are of one class; None without classes.
        relative: mean of their activations on an image over their largest known; None of a search by words.
    """

    id: str
    name: str | None
    members: int
    agreement: float
    purity: float | None = None
    relative: float | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Concept:
        return _pick(cls, row)


@dataclass(frozen=True, kw_only=True)
class Prediction(Result):
    """The most probable classes of an image, or its embedding.

    Attributes:
        probabilities: by class, most probable first; empty where the model has no classes.
        embedding: the output of a model without classes; else None.
        values: the outputs of a regression, by label; else empty.
    """

    probabilities: Mapping[str, float]
    embedding: tuple[float, ...] | None = field(default=None, repr=False)
    values: Mapping[str, float] = field(default_factory=dict)
    _instead: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("argmax", "top", "top1", "prediction", "class_name", "cls"), "Write label."),
        **dict.fromkeys(("score", "confidence", "prob", "max"), "Write probability."),
        **dict.fromkeys(("scores", "probs", "classes", "labels", "items", "topk", "top_k"), "Write probabilities."),
        **dict.fromkeys(
            ("logits", "output", "outputs"), "Write elude.GraphSession('BUNDLE/model.onnx').run(pixels).output."
        ),
    }

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return next(iter(self.probabilities), None)

    @property
    def probability(self) -> float | None:
        """Its probability."""
        return next(iter(self.probabilities.values()), None)

    @classmethod
    def from_json(cls, answer: Mapping[str, Any], scene: Scene = Scene()) -> Prediction:
        vector = answer.get("embedding")
        if isinstance(vector, list):
            return cls(answer=answer, scene=scene, probabilities={}, embedding=tuple(vector))
        values = answer.get("values")
        if isinstance(values, dict):
            return cls(answer=answer, scene=scene, probabilities={}, values=values)
        return cls(answer=answer, scene=scene, probabilities=dict(answer))

    def _repr_html_(self) -> str:
        rows = self.probabilities or self.values or {"embedding of length": float(len(self.embedding or ()))}
        return html.beside(html.picture(self.scene.picture()), html.bars(rows))


@dataclass(frozen=True, kw_only=True)
class Inspection(Result):
    """The sub-units behind a prediction, strongest first; a sequence.

    Attributes:
        prediction: of the same pass.
        sub_units: in the order asked for.
        concepts: that the image activates most; none of a bundle by an earlier version.
        sum_check: per layer, how far sub-units are from adding up to their units (``max_residual``), and the
            largest unit (``max_unit``).
    """

    prediction: Prediction
    sub_units: tuple[Activation, ...]
    concepts: tuple[Concept, ...]
    sum_check: Mapping[str, Mapping[str, float]] = field(repr=False)
    _instead: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("label", "probability", "probabilities"), "It is that of prediction: prediction.label."),
        **dict.fromkeys(("units", "features", "activations", "top"), "Write sub_units."),
        **dict.fromkeys(("heat_map", "heat_maps", "heatmap"), "Write sub_units[0].heat_map.activations."),
    }

    def __len__(self) -> int:
        return len(self.sub_units)

    def __getitem__(self, index: int) -> Activation:
        return self.sub_units[index]

    @classmethod
    def from_json(cls, answer: Mapping[str, Any], scene: Scene = Scene()) -> Inspection:
        return cls(
            answer=answer,
            scene=scene,
            prediction=Prediction.from_json(answer["prediction"], scene),
            sub_units=tuple(Activation.from_json(row) for row in answer["sub_units"]),
            concepts=tuple(Concept.from_json(row) for row in answer.get("concepts", ())),
            sum_check=answer["sum_check"],
        )

    def _repr_html_(self) -> str:
        image, rows = self.scene.picture(), []
        for unit in self.sub_units:
            drawn = None if unit.heat_map is None else unit.heat_map.activations
            value = f"activation {unit.activation:.3g}"
            value += "" if unit.effect is None else f", effect {unit.effect:+.3g}"
            overlaid = html.picture(image, drawn) if drawn is not None else ""
            rows.append([overlaid, html.title(unit.name, unit.id, value), self._examples(unit.id)])
        named = ", ".join(f"{concept.name or concept.id} ({concept.relative:.2f})" for concept in self.concepts[:8])
        return self.prediction._repr_html_() + (html.note(f"concepts: {named}") if named else "") + html.table(rows)

    def _examples(self, identifier: str) -> str:
        return html.thumbnails(self.scene.examples(identifier, 4))


@dataclass(frozen=True, kw_only=True)
class Steering(Result):
    """A prediction with edited sub-units, beside the one without.

    Attributes:
        before: without the edits; None if ``compare=False``.
        after: with them.
        change: after minus before, for the classes that either names.
        edits: as applied: identifier, action, value, patches, name.
        max_output_change: largest change of a logit, or of a number of the embedding.
    """

    before: Prediction | None
    after: Prediction
    change: Mapping[str, float] = field(repr=False)
    edits: tuple[Mapping[str, Any], ...] = field(repr=False)
    max_output_change: float | None = None
    _instead: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("label", "probability", "probabilities"), "Write after.label, or before.label."
    )

    @classmethod
    def from_json(cls, answer: Mapping[str, Any], scene: Scene = Scene()) -> Steering:
        before = answer.get("unsteered")
        return cls(
            answer=answer,
            scene=scene,
            before=None if before is None else Prediction.from_json(before, scene),
            after=Prediction.from_json(answer["steered"], scene),
            change=answer.get("change", {}),
            edits=tuple(answer["edits"]),
            max_output_change=answer.get("max_output_change"),
        )

    def _repr_html_(self) -> str:
        sides = [html.picture(self.scene.picture())]
        if self.before is not None:
            sides.append(html.bars(self.before.probabilities, "before"))
        sides.append(html.bars(self.after.probabilities, "after"))
        shown = [*map(_edit_text, self.edits[:8]), *["…"] * (len(self.edits) > 8)]
        return html.beside(*sides) + html.note(f"{len(self.edits)} edits: {', '.join(shown)}")


@dataclass(frozen=True, kw_only=True)
class SubUnits(Result):
    """Sub-units of a search or of a concept, best first; a sequence.

    Attributes:
        concepts: of a search by words, the concepts whose name fits.
    """

    sub_units: tuple[SubUnit, ...]
    concepts: tuple[Concept, ...] = ()

    def __len__(self) -> int:
        return len(self.sub_units)

    def __getitem__(self, index: int) -> SubUnit:
        return self.sub_units[index]

    @property
    def ids(self) -> tuple[str, ...]:
        """Their identifiers."""
        return tuple(unit.id for unit in self.sub_units)

    @classmethod
    def from_json(cls, answer: Mapping[str, Any], scene: Scene = Scene()) -> SubUnits:
        return cls(
            answer=answer,
            scene=scene,
            sub_units=tuple(map(SubUnit.from_json, answer["sub_units"])),
            concepts=tuple(map(Concept.from_json, answer.get("concepts", ()))),
        )

    def _repr_html_(self) -> str:
        if not self.sub_units:
            return html.note("No sub-unit.")
        return html.table(
            [
                [html.title(unit.name, unit.id, _statistics(unit)), html.thumbnails(self.scene.examples(unit.id, 6))]
                for unit in self.sub_units
            ]
        )


@dataclass(frozen=True)
class Example:
    """A probing image that activates a sub-unit strongly; ``png`` is its thumbnail."""

    image: str
    label: str | None
    token: int
    activation: float
    png: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Feature(Result):
    """One sub-unit with its strongest probing images and the other sub-units of its unit."""

    sub_unit: SubUnit
    siblings: tuple[str, ...]
    examples: tuple[Example, ...]

    @property
    def id(self) -> str:
        """Its identifier."""
        return self.sub_unit.id

    @property
    def name(self) -> str | None:
        """What it stands for; None while unnamed."""
        return self.sub_unit.name

    @classmethod
    def from_json(cls, answer: Mapping[str, Any], scene: Scene = Scene()) -> Feature:
        examples = [_pick(Example, {**row, "png": base64.b64decode(row["png"])}) for row in answer["examples"]]
        return cls(
            answer=answer,
            scene=scene,
            sub_unit=SubUnit.from_json(answer),
            siblings=tuple(answer["siblings"]),
            examples=tuple(examples),
        )

    def _repr_html_(self) -> str:
        title = html.title(self.name, self.id, _statistics(self.sub_unit))
        return title + html.thumbnails([example.png for example in self.examples], [e.label for e in self.examples])


def _pick(kind: type[_Row], row: Mapping[str, Any]) -> _Row:
    """A dataclass from those members of a row that it has fields for."""
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in row.items() if name in names})


def _statistics(unit: SubUnit) -> str:
    score = "" if unit.ms_score is None else f", MS-Score {unit.ms_score:.2f}"
    return f"active on {unit.active:.1%} of the probing images, at most {unit.maximum:.3g}{score}"


def _edit_text(edit: Mapping[str, Any]) -> str:
    value = "" if edit.get("value") is None else f" {edit['value']:g}"
    return f"{edit.get('name') or edit['id']}: {edit['action']}{value}"
