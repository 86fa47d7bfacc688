"""Claim (a) on the file itself: the sub-unit weights and biases that it computes, added up, against the layer's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from elude.exporter.graph.stored_weights import sub_unit_parameters
from elude.exporter.graph.write_graph import DTYPES
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.verify.compare import errors


def sums_of_weights(path: Path, original: nn.Module, split: LayerSplit, dtype: str) -> tuple[int, int, float]:
    """Number of weights and biases of a layer, how many of them the file's sub-units do not add up to, and by how
    much at most.
    """
    module = original.get_submodule(split.layer)
    assert isinstance(module, (nn.Linear, nn.Conv2d))
    bias = torch.zeros(len(split.parts)) if module.bias is None else module.bias.detach()
    weight = module.weight.detach()
    if dtype != "float32" and not _folds(path, split.layer):
        weight = weight.to(DTYPES[dtype]).float()  # the file has the layer's weights in that type only
    total, wrong, largest = 0, 0, 0.0
    for got, expected in zip(sub_unit_parameters(path, split.layer), (weight, bias), strict=True):
        summed = np.add.reduceat(got.astype(np.float64), split.first, axis=0)  # exact: 29 spare bits
        difference = errors(summed, expected.numpy())
        total, wrong = total + difference.size, wrong + int(np.count_nonzero(difference))
        largest = max(largest, float(difference.max()))
    return total, wrong, largest


def _folds(path: Path, layer: str) -> bool:
    """Whether the layer's weight is in the file once more, as it was before a normalisation was folded into it."""
    return any(
        tensor.name == f"{layer}.elude.weight" for tensor in onnx.load(path, load_external_data=False).graph.initializer
    )
