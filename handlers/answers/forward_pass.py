"""Forward passes for a batch whose requests must not hurt each other, and the effect of single sub-units on a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.output_kinds import CLASSES, MULTI_LABEL
from elude.handlers.errors import EludeError, RequestError

_ROWS = 16  # of one pass of ``effects_of``: bounds memory, and more rows are no faster on one core
_STATE = vars(ort.capi.onnxruntime_pybind11_state).values()
# Every exception of ONNX Runtime derives from Exception alone; what its own checks and an exhausted
# memory raise is added.
FAILURES: tuple[type[Exception], ...] = (
    *(kind for kind in _STATE if isinstance(kind, type) and issubclass(kind, Exception)),
    EludeError,
    MemoryError,
    RuntimeError,
    ValueError,
)


class Result(Protocol):
    """What a session returns: output (N, C), units and sub-units by layer, (N, T, U) and (N, T, S)."""

    @property
    def output(self) -> NDArray[np.float32]: ...
    @property
    def units(self) -> dict[str, NDArray[np.float32]]: ...
    @property
    def sub_units(self) -> dict[str, NDArray[np.float32]]: ...


class Session(Protocol):
    """The part of ``GraphSession`` that serving needs."""

    @property
    def layers(self) -> tuple[LayerInfo, ...]: ...
    @property
    def output_name(self) -> str: ...
    @property
    def output_kind(self) -> str: ...
    def run(
        self, pixel_values: NDArray[np.float32], edits: Sequence[Sequence[Edit]] | None = None, inspect: bool = False
    ) -> Result: ...


class Row(NamedTuple):
    """One row of a pass: output (C,), and by layer units (T, U) and sub-units (T, S), empty unless inspected.

    ``kind`` is what the outputs mean. ``scores`` (C,) are what an answer gives: of classes the softmax, of multi-label
    logits each one's sigmoid, else the outputs themselves. ``ranking`` (C,) is by falling probability, of values that
    are none in their own order.
    """

    output: NDArray[np.float32]
    scores: NDArray[np.float64]
    ranking: NDArray[np.int64]
    kind: str
    units: dict[str, NDArray[np.float32]]
    sub_units: dict[str, NDArray[np.float32]]


def run_rows(
    session: Session, pixel_values: NDArray[np.float32], edits: Sequence[tuple[Edit, ...]], inspect: bool
) -> list[Row | RequestError]:
    """One pass for all rows; should it fail, each row alone, so that the one at fault hurts no other.

    Args:
        session: runs the graph.
        pixel_values: float32 (N, 3, H, W).
        edits: of each row.
        inspect: whether units and sub-units are wanted.

    Returns:
        N rows, or in place of one that cannot be run alone either, its error: the request's own (4xx) or 500.
    """
    try:
        result = session.run(pixel_values, edits if any(edits) else None, inspect)
    except FAILURES as error:
        if len(pixel_values) > 1:
            rows = zip(pixel_values, edits, strict=True)
            return [row for pixels, own in rows for row in run_rows(session, pixels[None], [own], inspect)]
        if isinstance(error, RequestError):
            return [error]
        return [
            RequestError(
                f"The model could not be run on this request: {type(error).__name__}.", "See the server's log.", 500
            )
        ]
    kind = session.output_kind
    scores, ranking = scores_of(result.output, kind)
    units, sub_units = result.units.items(), result.sub_units.items()
    return [
        Row(*row, kind, {name: value[i] for name, value in units}, {name: value[i] for name, value in sub_units})
        for i, row in enumerate(zip(result.output, scores, ranking, strict=True))
    ]


def scores_of(output: NDArray[np.float32], kind: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """``scores`` and ``ranking`` of each row of (N, C), see ``Row``."""
    if kind not in (CLASSES, MULTI_LABEL):
        return output.astype(np.float64), np.broadcast_to(np.arange(output.shape[1]), output.shape)
    scores = probabilities(output) if kind == CLASSES else sigmoid(output)
    return scores, np.argsort(-scores, axis=1, kind="stable")


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) of each element, computed in float64 and rounded to float32 steps, as float64."""
    with np.errstate(over="ignore"):  # exp overflows to infinity, whose inverse is the right 0
        exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
    rounded: NDArray[np.float64] = exact.astype(np.float32).astype(np.float64)
    return rounded


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of each row of (N, C), computed in float64 and rounded to float32 steps, as float64."""
    with np.errstate(invalid="ignore"):  # an infinite logit gives NaN, which the caller refuses to send
        exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        exponents /= exponents.sum(axis=1, keepdims=True)
    rounded: NDArray[np.float64] = exponents.astype(np.float32).astype(np.float64)
    return rounded


def effects_of(
    session: Session,
    pixel_values: NDArray[np.float32],
    base: Sequence[Edit],
    candidates: Sequence[int],
    target: int,
    plain: Row,
) -> dict[int, float]:
    """How much each sub-unit adds to a class: the class's logit minus its logit with the sub-unit ablated on all
    tokens.

    Exact for each sub-unit alone (a forward pass, not a gradient); effects of several do not add
    up, as the layers behind are not linear.

    Args:
        session: runs the graph.
        pixel_values: float32 (1, 3, H, W).
        base: edits that are there anyway; one of the same sub-unit gives way.
        candidates: indices of sub-units.
        target: number of the class.
        plain: the row with ``base`` alone.

    Returns:
        effect by index, in the order of ``candidates``.
    """
    found: dict[int, float] = {}
    for start in range(0, len(candidates), _ROWS):
        some = candidates[start : start + _ROWS]
        edits = [(*(edit for edit in base if edit.index != index), Edit.ablate(index)) for index in some]
        for index, row in zip(
            some, run_rows(session, np.repeat(pixel_values, len(some), axis=0), edits, False), strict=True
        ):
            if isinstance(row, RequestError):
                raise row
            found[index] = float(plain.output[target]) - float(row.output[target])
    return found
