"""Claim (a) on the file itself: the sub-unit weights and biases that it computes, added up, against the layer's own.

Loads no torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from elude.exporter.graph.stored_weights import sub_unit_parameters
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.verify.compare import errors


def sums_of_weights(
    path: Path, split: LayerSplit, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[int, int, float]:
    """Number of weights and biases of a layer, how many of them the file's sub-units do not add up to, and by how
    much at most.

    Args:
        path: the file.
        split: of the layer.
        weight: float32 (units, inputs, *kernel), the layer's own.
        bias: float32 (units,).
    """
    total, wrong, largest = 0, 0, 0.0
    for got, expected in zip(sub_unit_parameters(path, split.layer), (weight, bias), strict=True):
        summed = np.add.reduceat(got.astype(np.float64), split.first, axis=0)  # exact: 29 spare bits
        difference = errors(summed, expected)
        total, wrong = total + difference.size, wrong + int(np.count_nonzero(difference))
        largest = max(largest, float(difference.max()))
    return total, wrong, largest


def folds(path: Path, layer: str) -> bool:
    """Whether the layer's weight is in the file once more, as it was before a normalisation was folded into it."""
    return any(
        tensor.name == f"{layer}.elude.weight" for tensor in onnx.load(path, load_external_data=False).graph.initializer
    )
