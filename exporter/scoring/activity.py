"""How strongly each unit and sub-unit answers to each image: one streaming pass that both the measures and the atlas
read. Loads no torch before ``scan`` is called.

Memory is 8 bytes per image and feature (a feature is a unit or sub-unit), beside one batch in flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elude.exporter.images import ImageSource
from elude.exporter.models.tokens import to_tokens
from elude.exporter.progress import Progress
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.errors import EvaluationError
from elude.handlers.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from elude.exporter.models.layers import Layer
    from elude.exporter.models.walk import Calls

UNITS = "units"


@dataclass(frozen=True)
class Activity:
    """Activations of the features of one layer over all tokens of all images.

    Attributes:
        peak: float32 (images, features), the largest activation over the tokens of each image.
        token: int32 (images, features), the token where it is; of equal ones the first.
        active: float64 (features,), fraction of all tokens where the activation is above 0.
        mean: float64 (features,), mean activation over all tokens.
        tokens: number of tokens of an image.
    """

    peak: NDArray[np.float32]
    token: NDArray[np.int32]
    active: NDArray[np.float64]
    mean: NDArray[np.float64]
    tokens: int

    def strongest(self, count: int) -> NDArray[np.int64]:
        """int64 (min(count, images), features): the images with the largest peak, strongest first, of equal ones the
        first.
        """
        return np.argsort(-self.peak, axis=0, kind="stable")[:count]


def scan(
    model: nn.Module,
    layers: Sequence[Layer],
    families: Mapping[str, Mapping[str, LayerSplit]],
    images: ImageSource,
    preprocess: Preprocess,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> dict[str, dict[str, Activity]]:
    """Run the images through the model once.

    Args:
        model: the original model.
        layers: of it.
        families: name of a family of sub-units → layer → split; the units themselves are always
            there, as the family ``units``.
        images: any images.
        preprocess: of the model.
        batch_size: images per forward pass.
        progress: called with (images done, images).

    Returns:
        layer → family → activity.

    Raises:
        EvaluationError: an activation is not finite.
        UnsupportedLayerError: a layer does not run exactly once per forward pass.
    """
    from elude.exporter.models.walk import walk
    from elude.exporter.rewrite.layer import SplitLayer

    rows = {
        (layer.name, name): SplitLayer(layer.module, splits[layer.name])
        for layer in layers
        for name, splits in families.items()
    }
    totals: dict[tuple[str, str], Totals] = {}

    def count(start: int, batch: int, calls: Calls) -> None:
        for layer in layers:
            x, z = calls[layer.name]
            for name in (UNITS, *families):
                output = z if name == UNITS else rows[layer.name, name].activations(x)
                values = to_tokens(output, layer, batch)
                if (layer.name, name) not in totals:
                    totals[layer.name, name] = Totals(len(images), values.shape[2])
                totals[layer.name, name].add(start, values)

    walk(model, layers, images, preprocess, count, batch_size=batch_size, progress=progress)
    return {
        layer.name: {name: totals[layer.name, name].finish(layer.name) for name in (UNITS, *families)}
        for layer in layers
    }


class Totals:
    """Sums that grow batch by batch into an ``Activity``."""

    def __init__(self, images: int, features: int) -> None:
        self.peak = np.empty((images, features), np.float32)
        self.token = np.empty((images, features), np.int32)
        self.above = np.zeros(features, np.int64)
        self.sum = np.zeros(features)
        self.tokens = 0

    def add(self, start: int, values: Tensor | NDArray[np.float32]) -> None:
        """Count one batch, values (batch, tokens, features), whose first image is ``start``."""
        rows = slice(start, start + len(values))
        reduced = _reduced(values) if isinstance(values, np.ndarray) else _reduced_where_it_is(values)
        self.peak[rows], self.token[rows] = reduced[:2]
        self.above += reduced[2]
        self.sum += reduced[3]
        self.tokens += values.shape[0] * values.shape[1]

    def finish(self, layer: str) -> Activity:
        """The activity of the layer named ``layer``."""
        if not np.isfinite(self.sum).all():
            raise EvaluationError(
                f"An activation of {layer} is NaN or infinite.", "Check the model's weights and preprocessing."
            )
        return Activity(
            self.peak, self.token, self.above / self.tokens, self.sum / self.tokens, self.tokens // len(self.peak)
        )


def _reduced(values: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Largest value of each image and feature, its token, and of each feature the number above 0 and the sum."""
    token = values.argmax(axis=1)
    peak = np.take_along_axis(values, token[:, None], axis=1)[:, 0]
    return peak, token, (values > 0).sum((0, 1)), values.sum((0, 1), dtype=np.float64)


def _reduced_where_it_is(values: Tensor) -> tuple[NDArray[Any], ...]:
    """The same by torch on the device of ``values``, so that only the result is copied."""
    import torch

    peak, token = values.max(dim=1)
    sums = (values > 0).sum((0, 1)), values.sum((0, 1), dtype=torch.float64)
    return tuple(array.cpu().numpy() for array in (peak, token, *sums))
