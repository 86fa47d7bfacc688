"""Edits as new weights of a torch model, built from NumPy: the reference that steering is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.handlers.bundle.edits import Edit


def weights_edited(model: nn.Module, splits: Sequence[LayerSplit], edits: Sequence[Edit]) -> nn.Module:
    """A copy with W'_u = W_u + sum (g - 1) w^s and b'_u = b_u + sum ((g - 1) b^s + o), summed in float64."""
    copied, first = copy.deepcopy(model), 0
    for split in splits:
        module = copied.get_submodule(split.layer)
        weight, bias = module.weight.detach().numpy(), None if module.bias is None else module.bias.detach().numpy()
        parts, shared = sub_unit_weights(weight, split), sub_unit_bias(bias, split)
        changed = weight.astype(np.float64)
        moved = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        for edit in edits:
            if first <= edit.index < first + split.sub_units:
                s = edit.index - first
                changed[split.parent[s]] += (edit.gain - 1) * parts[s].astype(np.float64)
                moved[split.parent[s]] += (edit.gain - 1) * float(shared[s]) + edit.offset
        module.weight = nn.Parameter(torch.from_numpy(changed).to(module.weight.dtype), requires_grad=False)
        module.bias = nn.Parameter(torch.from_numpy(moved).to(module.weight.dtype), requires_grad=False)
        first += split.sub_units
    return copied
