"""Dimensions that are fed batch after batch, as metrics of torchmetrics are: ``update`` with what a batch gave, then
``compute``.

The state is the few numbers of each image that a dimension needs (for calibration, its
probabilities), because equal-mass bins and intervals need all images at once. Batches are kept in
the order of their first image's ``position``, so that states merged in any order hold the images in
the order they would have had in one array: ``compute`` is then the whole-array function on that, to
the last bit. Without positions the order of the updates counts, and sums may round otherwise (by
less than 1e-12).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError, UsageError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.accuracy import accuracy
from elude.quality.dimensions.adversarial_robustness import adversarial_robustness
from elude.quality.dimensions.calibration_error import calibration_error
from elude.quality.dimensions.class_balance import class_balance
from elude.quality.dimensions.corruption_robustness import corruption_robustness
from elude.quality.dimensions.object_focus import object_focus
from elude.quality.dimensions.ood_robustness import ood_robustness
from elude.quality.dimensions.params_m import params_m
from elude.quality.dimensions.result import DimensionResult
from elude.quality.dimensions.shape_bias import shape_bias

Update = NDArray[Any] | Mapping[Any, NDArray[Any]]
_FUNCTIONS: dict[str, tuple[Callable[..., DimensionResult], tuple[str, ...]]] = {
    "accuracy": (accuracy, ("outputs", "labels")),
    "adversarial_robustness": (adversarial_robustness, ("clean", "fgsm", "pgd")),
    "corruption_robustness": (corruption_robustness, ("clean", "corrupted")),
    "ood_robustness": (ood_robustness, ("clean", "shifted")),
    "calibration_error": (calibration_error, ("outputs", "labels")),
    "class_balance": (class_balance, ("outputs", "labels")),
    "object_focus": (object_focus, ("same", "rand")),
    "shape_bias": (shape_bias, ("predictions", "shapes", "textures")),
}
STREAMABLE = (*_FUNCTIONS, "params_m")
_NAMED = {"corrupted", "shifted"}  # mappings of a condition or set to its answers
_ALONE = {"ood_robustness"}  # its sets are of other images, so each may have its own number of rows


class Streaming:
    """One dimension's state.

    Args:
        dimension: of ``STREAMABLE``, which are all nine.

    Attributes:
        higher_is_better: the direction that is an improvement.
        arguments: what ``update`` takes, in order. ``corrupted`` is a mapping of (corruption,
            severity), and ``shifted`` one of the names of the sets, to bool answers; the clean
            answers and sets of ``ood_robustness`` may come in different updates, left out or empty
            where a batch has none. ``parameters`` is a plain number, counted once however often it
            is told.
    """

    def __init__(self, dimension: str) -> None:
        if dimension not in STREAMABLE:
            raise UsageError(f"{dimension!r} is not a dimension.", f"Use one of {', '.join(STREAMABLE)}.")
        self.dimension = dimension
        self.higher_is_better = HIGHER_IS_BETTER[dimension]
        self.arguments = ("parameters",) if dimension == "params_m" else _FUNCTIONS[dimension][1]
        self._parts: list[tuple[int, dict[Any, NDArray[Any]]]] = []

    def __len__(self) -> int:
        """Images that were added, counted by the first argument."""
        return 0 if self.dimension == "params_m" else sum(len(part[self.arguments[0]]) for _, part in self._parts)

    def update(self, *values: Update | int, position: int | None = None) -> None:
        """Add a batch: one value for each of ``arguments``, all with one row an image.

        Args:
            values: arrays, or the mappings and the number named above.
            position: of the batch's first image among all images; by default behind what was added before.

        Raises:
            UsageError: another number of arguments or of rows, or other conditions than before.
        """
        if len(values) != len(self.arguments):
            raise self._refuse()
        flat: dict[Any, NDArray[Any]] = {}
        for name, value in zip(self.arguments, values, strict=True):
            if isinstance(value, Mapping) != (name in _NAMED):
                raise self._refuse()
            if isinstance(value, Mapping):
                flat |= {(name, key): np.array(array) for key, array in value.items()}
            else:
                flat[name] = np.array(value)
        if (
            self.dimension != "params_m"
            and self.dimension not in _ALONE
            and len({len(array) for array in flat.values()}) != 1
        ):
            raise self._refuse()
        if self._parts and self.dimension not in _ALONE and flat.keys() != self._parts[0][1].keys():
            raise UsageError(
                f"This batch of {self.dimension} has other conditions than the first.",
                "Give every batch the same ones.",
            )
        end = (
            max((at + max(map(len, part.values())) for at, part in self._parts), default=0)
            if self.dimension != "params_m"
            else 0
        )
        self._parts.append((end if position is None else position, flat))

    def merge(self, others: Sequence[Streaming]) -> None:
        """Add what other states of the same dimension saw.

        Raises:
            UsageError: a state of another dimension, or with other conditions.
        """
        for other in others:
            if other.dimension != self.dimension:
                raise UsageError(
                    f"{other.dimension} cannot be merged into {self.dimension}.", "Merge states of one dimension."
                )
            if (
                self._parts
                and other._parts
                and self.dimension not in _ALONE
                and self._parts[0][1].keys() != other._parts[0][1].keys()
            ):
                raise UsageError(
                    f"The states of {self.dimension} saw different conditions.", "Merge states of the same conditions."
                )
            self._parts += other._parts

    def compute(self, **options: Any) -> DimensionResult:
        """The dimension of all that was added; options as of its function (``resamples``, ``seed``, ``names``,
        ``paired``).

        Raises:
            EvaluationError: nothing was added, or the dimension is undefined on it.
        """
        if not self._parts:
            raise EvaluationError(f"{self.dimension} saw no images.", "Call update first.")
        if self.dimension == "params_m":
            numbers = {int(part["parameters"]) for _, part in self._parts}
            if len(numbers) > 1:
                raise EvaluationError(
                    f"The states are of models with {sorted(numbers)} parameters.", "Merge states of one model."
                )
            return params_m(numbers.pop(), **options)
        ordered = [part for _, part in sorted(self._parts, key=lambda item: item[0])]
        keys = dict.fromkeys(key for part in ordered for key in part)
        whole = {key: np.concatenate([part[key] for part in ordered if key in part]) for key in keys}
        function, names = _FUNCTIONS[self.dimension]
        arguments = [
            {key[1]: array for key, array in whole.items() if isinstance(key, tuple) and key[0] == name}
            if name in _NAMED
            else whole[name]
            for name in names
        ]
        return function(*arguments, **options)

    def _refuse(self) -> UsageError:
        return UsageError(
            f"{self.dimension} takes {', '.join(self.arguments)}, each with one row an image.", "Check the batch."
        )
