"""Dimensions that are fed batch after batch, as metrics of torchmetrics are: ``update`` with what a batch gave, then ``compute``.

The state is the few numbers of each image that a dimension needs (for calibration, its probabilities), because equal-mass bins and
intervals need all images at once. States of parts of the data can be merged; the order does not change a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.errors import EvaluationError, UsageError
from quality.dimensions import HIGHER_IS_BETTER
from quality.dimensions.accuracy import accuracy
from quality.dimensions.adversarial_robustness import adversarial_robustness
from quality.dimensions.calibration_error import calibration_error
from quality.dimensions.class_balance import class_balance
from quality.dimensions.object_focus import object_focus
from quality.dimensions.result import DimensionResult
from quality.dimensions.shape_bias import shape_bias

_FUNCTIONS: dict[str, tuple[Callable[..., DimensionResult], tuple[str, ...]]] = {
    "accuracy": (accuracy, ("outputs", "labels")),
    "calibration_error": (calibration_error, ("outputs", "labels")),
    "class_balance": (class_balance, ("outputs", "labels")),
    "adversarial_robustness": (adversarial_robustness, ("clean", "fgsm", "pgd")),
    "object_focus": (object_focus, ("same", "rand")),
    "shape_bias": (shape_bias, ("predictions", "shapes", "textures")),
}
STREAMABLE = tuple(_FUNCTIONS)


class Streaming:
    """One dimension's state.

    Args:
        dimension: of ``STREAMABLE``. (The two others are means of ratios over named sets: collect the answers of each set.)

    Attributes:
        higher_is_better: the direction that is an improvement.
        arguments: what ``update`` takes, in order.
    """

    def __init__(self, dimension: str) -> None:
        if dimension not in _FUNCTIONS:
            raise UsageError(f"{dimension!r} cannot be streamed.", f"Use one of {', '.join(STREAMABLE)}.")
        self.dimension = dimension
        self.higher_is_better = HIGHER_IS_BETTER[dimension]
        self.arguments = _FUNCTIONS[dimension][1]
        self._parts: list[tuple[NDArray[Any], ...]] = []

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def update(self, *arrays: NDArray[Any]) -> None:
        """Add a batch: one array for each of ``arguments``, all with one row an image.

        Raises:
            UsageError: another number of arrays, or of rows.
        """
        if len(arrays) != len(self.arguments) or len({len(array) for array in arrays}) != 1:
            raise UsageError(f"{self.dimension} takes {', '.join(self.arguments)}, each with one row an image.", "Check the batch.")
        self._parts.append(tuple(np.array(array) for array in arrays))

    def merge(self, others: Sequence[Streaming]) -> None:
        """Add what other states of the same dimension saw.

        Raises:
            UsageError: a state of another dimension.
        """
        for other in others:
            if other.dimension != self.dimension:
                raise UsageError(f"{other.dimension} cannot be merged into {self.dimension}.", "Merge states of one dimension.")
            self._parts += other._parts

    def compute(self, **options: Any) -> DimensionResult:
        """The dimension of all that was added; options as of its function (``resamples``, ``seed``, ``names``).

        Raises:
            EvaluationError: nothing was added, or the dimension is undefined on it.
        """
        if not self._parts:
            raise EvaluationError(f"{self.dimension} saw no images.", "Call update first.")
        return _FUNCTIONS[self.dimension][0](*(np.concatenate(parts) for parts in zip(*self._parts, strict=True)), **options)
