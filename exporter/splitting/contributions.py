"""Contribution vectors: what each input added to one unit at one activation instance.

For a linear layer z = W q + b, unit u at one instance gets c_j = W_uj q_j from input j, and the sum
of c is exactly z_u - b_u (the bias is left out). For a convolution the input is a channel of the
unit's group and c_j sums the products over the kernel window, so a 1x1 convolution is the linear
case at every location. (ELUDe, arXiv 2605.31304, section 3.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.exporter.weighted_layer import WeightedLayer
from elude.handlers.errors import UsageError

BLOCK = 2_048  # rows of contribution vectors that are in memory at a time


def layer_weight(layer: WeightedLayer) -> NDArray[np.float32]:
    """float32 (units, inputs, window): the layer's weight with the kernel's positions laid flat."""
    return layer.weight().reshape(layer.units, layer.inputs, layer.window)


def layer_bias(layer: WeightedLayer) -> NDArray[np.float32]:
    """float32 (units,): the layer's bias, zeros where it has none."""
    bias = layer.bias()
    return np.zeros(layer.units, np.float32) if bias is None else bias


@dataclass(frozen=True)
class Contributions:
    """Contribution vectors of one unit, computed when they are read: ``contributions[rows]``, float32 (rows, inputs).

    At the paper's size all of a unit take 4.9 GB, so they are read in ``blocks``.

    Attributes:
        inputs: float32 (instances, inputs, window), what the unit's group read.
        weight: float32 (inputs, window), the unit's.
        rows: int64 (rows,), the instances.
    """

    inputs: NDArray[np.float32]
    weight: NDArray[np.float32]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and inputs."""
        return len(self.rows), len(self.weight)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute some rows, not normalised.

        Raises:
            UsageError: if one is not finite.
        """
        gathered: NDArray[np.float32] = np.asarray(self.inputs[self.rows[rows]], np.float32)
        if self.weight.shape[1] == 1:
            products = gathered[:, :, 0]
            products *= self.weight[:, 0]
        else:
            products = np.einsum("rjw,jw->rj", gathered, self.weight)
        if not np.isfinite(products).all():
            raise UsageError(
                "A contribution of the layer is NaN or infinite.",
                "Check the model's weights and the images' preprocessing.",
            )
        return products


Vectors = NDArray[np.float32] | Contributions  # rows of one unit


def contributions(
    q: NDArray[np.float32], weight: NDArray[np.float32], unit: int, rows: NDArray[np.int64]
) -> Contributions:
    """What each input of the unit's group added to ``unit`` at the instances ``rows``.

    Args:
        q: float32 (instances, groups * inputs, window), a probe's.
        weight: float32 (units, inputs, window), the layer's (``layer_weight``).
        unit: its number.
        rows: int64 (rows,).
    """
    units, inputs = weight.shape[:2]
    first = unit // (units // (q.shape[1] // inputs)) * inputs
    return Contributions(q[:, first : first + inputs], weight[unit], rows)


def blocks(count: int) -> Iterator[slice]:
    """Slices of at most ``BLOCK`` rows that cover ``count`` of them."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def top_rows(activations: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """int64 (min(count, instances),): the instances with the largest activation, ascending; ties go to the lowest
    instance.

    Raises:
        UsageError: if an activation is not finite.
    """
    if not np.isfinite(activations).all():
        raise UsageError(
            "An activation of the layer is NaN or infinite.", "Check the model's weights and the images' preprocessing."
        )
    if count >= len(activations):
        return np.arange(len(activations), dtype=np.int64)
    threshold = np.partition(activations, len(activations) - count)[len(activations) - count]
    above = np.flatnonzero(activations > threshold)
    equal = np.flatnonzero(activations == threshold)[: count - len(above)]
    return np.sort(np.concatenate([above, equal])).astype(np.int64)


def top_rows_of_pictures(
    activations: NDArray[np.float32], count: int, image: NDArray[np.int64], per_image: int
) -> NDArray[np.int64]:
    """As ``top_rows``, with at most ``per_image`` instances of one image, so that no image makes a cluster alone."""
    sizes = np.bincount(image)
    if sizes.max() <= per_image or not np.isfinite(activations).all():
        return top_rows(activations, count)
    sizes = sizes[sizes > 0]
    falling = np.argsort(-activations, kind="stable")
    by_image = np.argsort(image[falling], kind="stable")
    rank = np.empty(len(falling), np.int64)  # of each instance within its image, strongest first
    rank[by_image] = np.arange(len(falling)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(falling[rank < per_image][:count])


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (rows, inputs): each row over its Euclidean length; rows of zeros stay zero.

    Each row is first divided by its largest magnitude, so that neither huge nor denormal values
    over- or underflow when squared.
    """
    vectors = np.asarray(vectors, np.float32)
    peak = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    scaled: NDArray[np.float32] = np.divide(vectors, peak, out=np.zeros_like(vectors), where=peak > 0)
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    np.divide(scaled, length, out=scaled, where=length > 0)
    return scaled
