"""Accuracy: the share of images whose highest output is their class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import check_labels, probabilities_of, wilson_interval


def correct(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """bool (N,): whether the top-1 class of ``outputs`` (N, C) is the label.

    The first of equal outputs wins, as in numpy and torch.
    """
    return np.asarray(outputs.argmax(axis=1) == labels)


def accuracy_per_class(
    hits: NDArray[np.bool_], labels: NDArray[np.int64], names: Sequence[str]
) -> dict[str, float | None]:
    """Accuracy of each class, None for a class without images."""
    counts = np.bincount(labels, minlength=len(names))
    sums = np.bincount(labels, weights=hits, minlength=len(names))
    return {name: float(sums[i] / counts[i]) if counts[i] else None for i, name in enumerate(names)}


def right_per_class(hits: NDArray[np.bool_], labels: NDArray[np.int64], names: Sequence[str]) -> dict[str, str]:
    """The images of each class that has any, in order: ``1`` for a right answer and ``0`` for a wrong one."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    rows = np.split(hits[order], starts[1:])
    return {names[c]: "".join("01"[int(right)] for right in row) for c, row in zip(present, rows, strict=True)}


def accuracy(outputs: NDArray[Any], labels: NDArray[Any], names: Sequence[str] | None = None) -> DimensionResult:
    """Top-1 accuracy.

    Args:
        outputs: (N, C) logits or probabilities.
        labels: integer (N,).
        names: C names of the classes for the table.

    Returns:
        value in [0, 1]; Wilson interval; table ``accuracy_per_class``; ``right_per_class``.

    Raises:
        EvaluationError: for outputs or labels that do not fit.
    """
    probabilities_of(outputs[:1])
    classes = outputs.shape[1]
    labels = check_labels(labels, len(outputs), classes)
    hits = correct(outputs, labels)
    names = [str(c) for c in range(classes)] if names is None else names
    return DimensionResult(
        float(hits.mean()),
        HIGHER_IS_BETTER["accuracy"],
        len(outputs),
        wilson_interval(int(hits.sum()), len(hits)),
        {},
        {"accuracy_per_class": accuracy_per_class(hits, labels, names)},
        right_per_class=right_per_class(hits, labels, names),
    )


def require_right_answers(hits: NDArray[np.bool_]) -> None:
    """Raises EvaluationError if no clean image is classified rightly: nothing can be measured relative to that."""
    if not hits.any():
        raise EvaluationError(
            "Relative accuracy is undefined: no clean image is classified rightly.", "Check the order of the labels."
        )
