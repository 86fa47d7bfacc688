"""Edits that become weights: a fixed preset at no cost at run time.

Editing sub-unit s of unit u from a to g a + o on all tokens adds (g - 1)(w^s q + b^s) + o to z_u,
which is linear in q again:

    W'_u = W_u + sum over edits (g - 1) w^s        b'_u = b_u + sum over edits ((g - 1) b^s + o)

An edit of the strongest patches only depends on the image and cannot be baked. The weights are
those of live steering up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from elude.exporter.rewrite.kinds import check_distinct, find
from elude.exporter.rewrite.layer import SplitLayer
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.errors import UsageError
from elude.handlers.requests.edits import PADDING, Edit


def bake(model: nn.Module, splits: Sequence[LayerSplit], edits: Sequence[Edit]) -> nn.Module:
    """A copy of ``model`` with ``edits`` in its weights; sub-unit indices count over all layers in the order of
    ``splits``.

    Raises:
        UsageError: if an index does not exist, an edit is limited to some patches, or a split does not fit the model.
        UnsupportedLayerError: if a layer cannot be split.
    """
    check_distinct(splits)
    total = sum(split.sub_units for split in splits)
    for edit in edits:
        if not PADDING <= edit.index < total:
            raise UsageError(f"There is no sub-unit {edit.index}.", f"Indices run from 0 to {total - 1}.")
        if edit.patches:
            raise UsageError(
                f"The edit of sub-unit {edit.index} is limited to {edit.patches} patches.",
                "Steer it live: weights act on all patches.",
            )
    steered = copy.deepcopy(model)
    first = 0
    for split in splits:
        own = [edit for edit in edits if first <= edit.index < first + split.sub_units]
        if own:
            _edit(find(steered, split), split, [edit.index - first for edit in own], own)
        first += split.sub_units
    return steered


@torch.no_grad()
def _edit(module: nn.Module, split: LayerSplit, index: Sequence[int], edits: Sequence[Edit]) -> None:
    layer = SplitLayer(module, split)
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    gain = torch.tensor([edit.gain - 1 for edit in edits], dtype=weight.dtype, device=weight.device)
    offset = torch.tensor([edit.offset for edit in edits], dtype=weight.dtype, device=weight.device)
    rows = layer.parent[list(index)]
    change = gain.reshape(-1, *[1] * (weight.ndim - 1)) * layer.weight[list(index)]
    weight.index_add_(0, rows, change)
    bias = module.bias if isinstance(module.bias, torch.Tensor) else weight.new_zeros(layer.units)
    module.bias = nn.Parameter(bias.index_add(0, rows, gain * layer.bias[list(index)] + offset), requires_grad=False)
