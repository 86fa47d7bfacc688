"""What a user may say about a model beside its name, and the text form of it: ``NAME?output=pooler_output&pool=mean``.

The text form travels in the bundle, so that the same model can be built again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from elude.handlers.bundle.output_kinds import CLASSES, EMBEDDING, MULTI_LABEL, OUTPUT_KINDS, REGRESSION
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess

EMBEDDED = "embedded"  # the model that travels with this package, with its images
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"
POOLS = ("mean", "first")
ONNX = "onnx:"  # before the name of a model that an ONNX file is all there is of
_IN_TEXT = ("output", "kind", "pool", "part", "weights")


@dataclass(frozen=True)
class ModelOptions:
    """Choices; None where there is nothing to say.

    Attributes:
        output: of a model with several outputs, the name or the number of the one to keep.
        kind: what the outputs mean, one of ``OUTPUT_KINDS``.
        pool: of an output with places, (N, T, C) or (N, C, H, W): ``mean`` over them, or the ``first`` token.
        part: class of transformers to load instead of the one that the folder names, e.g. ``CLIPVisionModel``.
        weights: file of weights of a torchvision model.
        preprocess: what the model expects of an image, where its source does not say so.
        labels: names of the outputs, in order or by number.
    """

    output: str | None = None
    kind: str | None = None
    pool: str | None = None
    part: str | None = None
    weights: str | None = None
    preprocess: Preprocess | None = None
    labels: Sequence[str] | Mapping[int, str] | Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name, value, choices in (("kind", self.kind, OUTPUT_KINDS), ("pool", self.pool, POOLS)):
            if value is not None and value not in choices:
                raise UsageError(f"{name} is {value!r}.", f"Use one of {', '.join(choices)}.")

    def over(self, other: ModelOptions) -> ModelOptions:
        """These choices, and those of ``other`` where there is nothing said here."""
        names = {field.name for field in fields(self)}
        if self.kind == EMBEDDING:
            names -= {"labels"}  # the numbers of an embedding have none, whatever the source says
        said = {name: getattr(self, name) for name in names}
        return replace(self, **{name: getattr(other, name) for name, value in said.items() if value is None})

    def address(self, name: str) -> str:
        """``name`` with the choices that a text can hold."""
        said = {key: value for key in _IN_TEXT if (value := getattr(self, key)) is not None}
        return f"{name}?{urlencode(said)}" if said else name


def check_output_shape(shape: Sequence[int], options: ModelOptions, name: str) -> None:
    """Refuse an output that these choices do not make one row of numbers per image of.

    Args:
        shape: of the output, images first.
        options: what was said of the model.
        name: of the model, for the message.

    Raises:
        UsageError: says what to choose.
    """
    axes = len(shape)
    text = f"({', '.join(['N', *map(str, shape[1:])])})"
    if axes == 1 and options.kind not in (REGRESSION, MULTI_LABEL):
        raise UsageError(
            f"{name} returns one number per image.", f"Say what it means: kind {REGRESSION!r} or {MULTI_LABEL!r}."
        )
    if axes in (3, 4) and options.pool is None:
        first = " or 'first' for the first token" if axes == 3 else ""
        raise UsageError(f"{name} returns {text}.", f"Choose pool 'mean' for the mean over its places{first}.")
    if axes > 4 or (options.pool == "first" and axes != 3) or (options.pool and axes < 3):
        raise UsageError(f"{name} returns {text}, which cannot be pooled by {options.pool!r}.")


def output_meaning(options: ModelOptions, outputs: int, name: str) -> tuple[str, tuple[str, ...] | None]:
    """The kind of the outputs and their labels, as these choices say them.

    Args:
        options: what was said of the model.
        outputs: numbers per image.
        name: of the model, for the message.

    Raises:
        UsageError: the meaning is not said, or labels do not fit.
    """
    kind = options.kind or (None if options.labels is None else CLASSES)
    if kind is None:
        raise UsageError(
            f"It is not known what the {outputs} outputs of {name} mean.",
            f"Give their labels if they are classes ({MULTI_LABEL!r} and {REGRESSION!r} take labels too), or the kind: "
            f"{', '.join(OUTPUT_KINDS)}.",
        )
    labels = None if options.labels is None else label_names(options.labels, outputs)
    if kind == EMBEDDING and labels is not None:
        raise UsageError(f"{name} returns an embedding, whose {outputs} numbers have no labels.")
    if kind == CLASSES and outputs == 1:
        raise UsageError(
            f"{name} returns one number per image, which is not a choice among classes.",
            f"Say what it means: kind {REGRESSION!r}, or {MULTI_LABEL!r} for the logit of yes or no.",
        )
    return kind, labels


def parse_address(address: str) -> tuple[str, ModelOptions]:
    """The name in an address, and the choices behind its question mark.

    Raises:
        UsageError: an unknown choice.
    """
    name, mark, query = address.partition("?")
    if not mark:
        return name, ModelOptions()
    said: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if strange := sorted(set(said) - set(_IN_TEXT)):
        raise UsageError(
            f"{address!r} says {strange[0]!r}, which is unknown.", f"Known behind '?': {', '.join(_IN_TEXT)}."
        )
    return name, ModelOptions(**said)


def label_names(labels: Sequence[str] | Mapping[int, str] | Mapping[str, str], outputs: int) -> tuple[str, ...]:
    """One name per output.

    Args:
        labels: names in the order of the outputs, or number of the output → name, whose gaps get their number.
        outputs: how many there are.

    Raises:
        UsageError: too few, too many, or a number that is not an output's.
    """
    if isinstance(labels, Mapping):
        try:
            numbered = {int(number): str(name) for number, name in labels.items()}
        except ValueError as error:
            raise UsageError(f"Labels are numbered by {error}.", "Give a number of an output for each name.") from error
        if strange := [number for number in numbered if not 0 <= number < outputs]:
            raise UsageError(f"There is a label for output {strange[0]}; the model has {outputs} outputs.")
        return tuple(numbered.get(number, str(number)) for number in range(outputs))
    if isinstance(labels, str) or len(labels) != outputs:
        count = 1 if isinstance(labels, str) else len(labels)
        raise UsageError(
            f"There are {count} labels for {outputs} outputs.", "Give one name per output, in the order of the outputs."
        )
    return tuple(str(name) for name in labels)
