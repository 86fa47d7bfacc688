"""One split layer: its sub-units' weights, their activations, and the change that edits make to its output.

Editing sub-unit s from a = z^s to g a + o changes its unit by (g - 1) a + o, as the unit is the sum
of its sub-units. So the layer stays as it is and steering adds

    delta_u(t) = sum over edits of sub-units of u of [t among the edit's tokens] ((g - 1) a_s(t) + o)

to its output: only edited sub-units are computed, and without edits nothing is. Several edits of
    one sub-unit each start
from its unedited activation, and their changes add.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elude.exporter.rewrite.kinds import rows_of
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.handlers.bundle.edits import Edit

_NUMPY_TYPES = {torch.float16, torch.float32, torch.float64}


class SplitLayer(nn.Module):
    """The sub-units of one layer.

    Args:
        module: the layer; neither kept nor changed.
        split: its split.
    """

    weight: Tensor
    bias: Tensor
    parent: Tensor
    group: Tensor

    def __init__(self, module: nn.Module, split: LayerSplit) -> None:
        super().__init__()
        self.name, self.units, self.sub_unit_count = split.layer, len(split.parts), split.sub_units
        self.rows = rows_of(module, split.layer)
        weight, bias = _parameters(module, split)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        parent = torch.from_numpy(split.parent)
        self.register_buffer("parent", parent, persistent=False)
        self.register_buffer("group", parent // (self.units // self.rows.groups), persistent=False)

    def activations(self, x: Tensor) -> Tensor:
        """Activations of all sub-units for the layer's input ``x``, in the layout of the layer's output."""
        result: Tensor = self.rows(x, self.weight, self.bias, self.group)
        return result

    def merge(self, activations: Tensor) -> Tensor:
        """The layer's output from ``activations``: the sum of each unit's sub-units."""
        return self.rows.merge(activations, self.parent, self.units)

    def steered(self, x: Tensor, z: Tensor, edits: Sequence[Sequence[Edit]]) -> Tensor:
        """The layer's output ``z`` for input ``x`` with each image's edits.

        Args:
            x: the layer's input.
            z: the layer's output; not changed.
            edits: of each image, indices within this layer.

        Returns:
            A new tensor; images without edits are bit-identical to ``z``.
        """
        batch = len(edits)
        images = [self.rows.image(z, i, batch) for i in range(batch)]
        for i, row in enumerate(edits):
            if row:
                images[i] = images[i] + self._change(self.rows.image(x, i, batch), images[i], row)
        return torch.cat(images)

    def _change(self, x: Tensor, z: Tensor, edits: Sequence[Edit]) -> Tensor:
        """What the edits of one image add to its output ``z``, in its shape."""
        row = sorted(edits, key=lambda edit: edit.index)  # stable; rows of a grouped convolution must ascend
        index = torch.tensor([edit.index for edit in row], device=z.device)
        values = self.rows(x, self.weight[index], self.bias[index], self.group[index])
        a = self.rows.tokens(values, 1)[0]  # (tokens, edits)
        gain = torch.tensor([edit.gain for edit in row], dtype=z.dtype, device=z.device)
        offset = torch.tensor([edit.offset for edit in row], dtype=z.dtype, device=z.device)
        change = (gain - 1) * a + offset
        for column, edit in enumerate(row):
            if 0 < edit.patches < len(a):
                strongest = torch.argsort(a[:, column], descending=True, stable=True)  # ties: the lowest token
                change[strongest[edit.patches :], column] = 0
        delta = change.new_zeros(len(a), self.units).index_add(1, self.parent[index], change)
        return self.rows.untokens(delta, z)


def _array(value: Tensor) -> NDArray[Any]:
    """``value`` for NumPy; types that it does not know are widened to float32."""
    known = value.detach() if value.dtype in _NUMPY_TYPES else value.detach().float()
    return known.cpu().numpy()


def _parameters(module: nn.Module, split: LayerSplit) -> tuple[Tensor, Tensor]:
    """Sub-unit weights and biases in the type and on the device of the module's own."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    split_bias = sub_unit_bias(_array(bias) if isinstance(bias, Tensor) else None, split)
    return torch.from_numpy(sub_unit_weights(_array(weight), split)).to(weight), torch.from_numpy(split_bias).to(weight)
