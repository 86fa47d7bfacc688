"""Any module as one that returns one tensor of shape (N, outputs): the choice among several, and over places.

The module gets a sub-class of its own class whose ``forward`` makes the choice, so that no path and no name of a
weight changes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from elude.exporter.models.options import ModelOptions, check_output_shape
from elude.exporter.models.trial import IMAGES
from elude.handlers.errors import UsageError

_SELECT = "_elude_select"


@dataclass(frozen=True)
class Select:
    """From what a model returns to (N, outputs).

    Attributes:
        output: key or position of the tensor; None: it returns a single one.
        places: how the output's places are pooled: ``mean``, ``first``, or "" where there are none.
        scalar: whether it is (N,), one number per image.
    """

    output: str | None = None
    places: str = ""
    scalar: bool = False

    def __call__(self, returned: Any) -> Tensor:
        tensor = returned if self.output is None else tensors(returned)[self.output]
        if self.scalar:
            return tensor.unsqueeze(1)
        if self.places == "first":
            return tensor[:, 0]
        if self.places == "mean":
            return tensor.flatten(2).mean(2) if tensor.ndim == 4 else tensor.mean(1)
        return tensor


class _Selecting:
    """Mixed in before the module's own class."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        select: Select = vars(self)[_SELECT]
        return select(super().forward(pixel_values))  # type: ignore[misc]


def choose(returned: Any, options: ModelOptions, name: str) -> Select:
    """How to make one tensor (N, outputs) of what a model returned for ``IMAGES`` images.

    Raises:
        UsageError: there is something to choose; lists what.
    """
    output = _choose_output(returned, options.output, name)
    tensor = returned if output is None else tensors(returned)[output]
    if tensor.ndim == 0 or tensor.shape[0] != IMAGES:
        raise UsageError(
            f"{name} returns a tensor of shape {tuple(tensor.shape)} for {IMAGES} images.",
            "It must return one row per image.",
        )
    check_output_shape(tensor.shape, options, name)
    return Select(output, options.pool or "", tensor.ndim == 1)


def selecting(module: nn.Module, select: Select) -> nn.Module:
    """A module that shares all of ``module``'s parts and returns what ``select`` makes of its output."""
    if select == Select():
        return module
    own = type(module)
    result = copy.copy(module)
    vars(result)[_SELECT] = select
    result.__class__ = type(own.__name__, (_Selecting, own), {"__module__": own.__module__})
    return result


def tensors(returned: Any) -> dict[str, Tensor]:
    """The tensors that a model returned, by key or position; {} if it returned neither a mapping nor a sequence."""
    if hasattr(returned, "_asdict"):
        returned = returned._asdict()
    if isinstance(returned, (list, tuple)):
        returned = dict(enumerate(returned))
    if not isinstance(returned, Mapping):
        return {}
    return {str(key): value for key, value in returned.items() if isinstance(value, Tensor)}


def _choose_output(returned: Any, wanted: str | None, name: str) -> str | None:
    if isinstance(returned, Tensor):
        if wanted is not None:
            raise UsageError(f"{name} returns a single tensor, so there is no output {wanted!r} to choose.")
        return None
    several = tensors(returned)
    if not several:
        raise UsageError(
            f"{name} returns a {type(returned).__name__}.", "It must return a tensor, or several by name or in order."
        )
    listed = ", ".join(f"{key} ({', '.join(['N', *map(str, value.shape[1:])])})" for key, value in several.items())
    if wanted is None and len(several) > 1 and "logits" not in several:
        raise UsageError(f"{name} returns several tensors: {listed}.", "Choose one by its name: output='…'.")
    chosen = wanted if wanted is not None else next(iter(several)) if len(several) == 1 else "logits"
    if chosen not in several:
        raise UsageError(f"{name} has no output {chosen!r}.", f"It returns {listed}.")
    return chosen
