"""The explicit form, the paper's: each split layer becomes one of its sub-units followed by the sum over each unit's
sub-units.

    z = M (W' q + b'),   W' (sub-units, inputs), M (units, sub-units) with M_us = 1 where s is a sub-unit of u, else 0

M W' = W and M b' = b, so z is the layer's own up to the order of the additions (ELUDe, arXiv 2605.31304, section 3).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from elude.exporter.rewrite.kinds import check_distinct, find
from elude.exporter.rewrite.layer import SplitLayer
from elude.exporter.splitting.layer_split import LayerSplit


class ExplicitLayer(nn.Module):
    """Stands in the place of a split layer; sub-unit weights are its buffers, so that its parameters are not counted
    twice.
    """

    def __init__(self, split: SplitLayer) -> None:
        super().__init__()
        self.split = split

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for its input ``x``."""
        return self.split.merge(self.split.activations(x))


def explicit(model: nn.Module, splits: Sequence[LayerSplit]) -> nn.Module:
    """A copy of ``model`` whose split layers are made of their sub-units; the model itself is not touched.

    Raises:
        UsageError: if a split does not fit the model.
        UnsupportedLayerError: if a layer cannot be split.
    """
    check_distinct(splits)
    twin = copy.deepcopy(model)
    for split in splits:
        twin.set_submodule(split.layer, ExplicitLayer(SplitLayer(find(twin, split), split)))
    return twin
