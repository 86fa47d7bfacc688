"""What can be measured: anything that maps pixels in [0, 1] to one output per class. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.handlers.images.preprocess import Preprocess, unit_of
from elude.handlers.images.read_pixels import Pixels

Images = NDArray[np.float32]
Outputs = NDArray[np.float32]


class Subject(Protocol):
    """One classifier.

    Attributes:
        kind: "torch", "onnx" or "callable".
        name: for people.
        preprocess: how images become its pixels; the normalisation is part of the subject.
        labels: the names of its outputs, None if unknown.
        parameters: how many it has, None if unknown.
        sha256: of the file or weights, None if unknown.
    """

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def labels(self) -> tuple[str, ...] | None: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def sha256(self) -> str | None: ...

    def outputs(self, pixels: Images) -> Outputs:
        """float32 (N, C) logits, or probabilities, of float32 (N, channels, H, W) pixels in [0, 1]."""
        ...


@dataclass(frozen=True)
class Forms:
    """The three forms of one bundle's model: lossless means that all three measure the same.

    Attributes:
        name: of the model.
        artefact_sha256: of the bundle.
        original: the torch model as it was.
        disentangled: its torch twin.
        served: the graph, which is what the report is about.
    """

    name: str
    artefact_sha256: str
    original: Subject
    disentangled: Subject
    served: Subject


class CallableSubject:
    """Any function from pixels in [0, 1] to outputs: another framework, a remote endpoint."""

    kind = "callable"

    def __init__(
        self,
        function: Callable[[Images], NDArray[np.floating]],
        preprocess: Preprocess,
        *,
        name: str = "callable",
        labels: Sequence[str] | None = None,
        parameters: int | None = None,
        sha256: str | None = None,
    ) -> None:
        self._function = function
        self.preprocess = preprocess
        self.name = name
        self.labels = None if labels is None else tuple(labels)
        self.parameters = parameters
        self.sha256 = sha256

    def outputs(self, pixels: Images) -> Outputs:
        return check_outputs(self._function(pixels), len(pixels), self.name)


def check_outputs(outputs: NDArray[np.floating], images: int, name: str) -> Outputs:
    """float32 (images, C).

    Raises:
        EvaluationError: if the subject returned another shape.
    """
    outputs = np.asarray(outputs, np.float32)
    if outputs.ndim != 2 or outputs.shape[0] != images:
        raise EvaluationError(
            f"{name} returned shape {outputs.shape} for {images} images.",
            "A subject returns one row of class outputs per image.",
        )
    return outputs


def check_width(outputs: Outputs, names: int, subject: str) -> Outputs:
    """The outputs, one per name.

    Raises:
        EvaluationError: there are more or fewer outputs than names, so that it is unknown which is which.
    """
    if outputs.shape[1] != names:
        raise EvaluationError(
            f"{subject} has {outputs.shape[1]} outputs, and {names} names are given for them.",
            "Give one name per output, in order: labels.json of the model, or `outputs` of the suite.",
        )
    return outputs


def outputs_of(subject: Subject, pixels: Pixels, batch_size: int) -> NDArray[np.float32]:
    """float32 (N, C) of (N, H, W, channels) pixels, batch after batch."""
    return np.concatenate(
        [subject.outputs(unit_of(pixels[i : i + batch_size])) for i in range(0, len(pixels), batch_size)]
    )
