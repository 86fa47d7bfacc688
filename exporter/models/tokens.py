"""One shape for the output of every kind of layer: (batch, tokens, units).

A location of a feature map is a token, row by row. Loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from elude.exporter.weighted_layer import WeightedLayer

if TYPE_CHECKING:
    from torch import Tensor

Array = TypeVar("Array", "Tensor", NDArray[np.float32])


def to_tokens(z: Array, layer: WeightedLayer, batch: int | None = None) -> Array:
    """Lay out a layer's output as tokens.

    Args:
        z: of a linear layer (N, features), (N, T, features) or (N, ..., features); of a convolution
            (N, features, h, w). Features are the layer's units, or its sub-units.
        layer: the layer it came from.
        batch: number of images, when the layer runs on parts of them: windows of one image, folded
            into the batch one after another, become further tokens of it.

    Returns:
        (N, T, features), without copying where the layout allows it.

    Raises:
        ValueError: the shape does not fit the kind of layer or the batch.
    """
    if z.ndim != 4 if layer.kind == "conv" else z.ndim < 2:
        raise ValueError(f"{layer.name}: an output of shape {tuple(z.shape)} is not that of a {layer.kind} layer")
    if layer.kind == "conv":
        z = z.reshape(z.shape[0], z.shape[1], -1).swapaxes(1, 2)
    else:
        z = z.reshape(z.shape[0], -1, z.shape[-1])
    if batch is None or z.shape[0] == batch:
        return z
    if z.shape[0] % batch:
        raise ValueError(f"{layer.name}: {z.shape[0]} rows are not whole parts of {batch} images")
    return z.reshape(batch, -1, z.shape[-1])
