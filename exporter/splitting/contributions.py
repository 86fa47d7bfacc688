"""Contribution vectors: what each input added to one unit at one activation instance.

For a linear layer z = W q + b, unit u at one instance gets c_j = W_uj q_j from input j, and the sum
of c is exactly z_u - b_u (the bias is left out). For a convolution the input is a channel of the
unit's group and c_j sums the products over the kernel window, so a 1x1 convolution is the linear
case at every location. (ELUDe, arXiv 2605.31304, section 3.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elude.exporter.weighted_layer import WeightedLayer
from elude.handlers.errors import UsageError

if TYPE_CHECKING:
    from elude.exporter.probing.probe_store import Probe


def layer_weight(layer: WeightedLayer) -> NDArray[np.float32]:
    """float32 (units, inputs, window): the layer's weight with the kernel's positions laid flat."""
    return layer.weight().reshape(layer.units, layer.inputs, layer.window)


def layer_bias(layer: WeightedLayer) -> NDArray[np.float32]:
    """float32 (units,): the layer's bias, zeros where it has none."""
    bias = layer.bias()
    return np.zeros(layer.units, np.float32) if bias is None else bias


def contributions(layer: WeightedLayer, probe: Probe, unit: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 (rows, inputs): what each input of the unit's group added to ``unit`` at the instances ``rows``; not
    normalised.
    """
    group = unit // (layer.units // layer.groups)
    inputs = slice(group * layer.inputs, (group + 1) * layer.inputs)
    weight = layer_weight(layer)[unit]
    gathered: NDArray[np.float32] = np.asarray(probe.q[:, inputs][rows], np.float32)
    if layer.window == 1:
        products: NDArray[np.float32] = gathered[:, :, 0] * weight[:, 0]
        return products
    summed: NDArray[np.float32] = np.einsum("rjw,jw->rj", gathered, weight)
    return summed


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
    if not np.isfinite(activations).all():
        return top_rows(activations, count)
    falling = np.argsort(-activations, kind="stable")
    by_image = np.argsort(image[falling], kind="stable")
    sizes = np.unique(image, return_counts=True)[1]
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
