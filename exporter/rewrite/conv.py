"""Convolutions: z_u(p) = sum_j sum_w W_ujw q_j(p + w) + b_u at every location p, over the input channels j of the
unit's group.

An input is a channel, so all weights of the kernel window of (u, j) share one mask, and the
sub-unit's kernel is m_usj W_uj. As the masks' fractions sum to 1, sum_s w^s_jw = W_ujw for every
window position, and as a convolution is linear in its kernel for any fixed stride, padding and
dilation, sum_s z^s(p) = z_u(p) at every location. A 1x1 kernel is the linear layer at every
location. In a grouped convolution the sub-unit stays in its unit's group; in a depthwise one a
group has one channel. The sum must be taken before the normalisation (whose statistics and scale
belong to the unit) and the nonlinearity that follow.

Groups may have unlike numbers of sub-units, but a grouped convolution wants equal ones: rows are
padded with zero kernels up to the largest group and the real ones picked afterwards.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from elude.handlers.errors import UnsupportedLayerError


class ConvRows(nn.Module):
    """Computes any rows of sub-unit kernels of one Conv2d; holds no weights itself.

    Args:
        module: the convolution, whose own stride, padding and dilation are used.
    """

    def __init__(self, module: nn.Conv2d) -> None:
        super().__init__()
        self.groups = module.groups
        self.template = copy.deepcopy(module).requires_grad_(False)  # the class too: some pad by the size of the image
        self.template.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
        self.template.bias = nn.Parameter(module.weight.new_empty(0), requires_grad=False)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, group: Tensor) -> Tensor:
        """(batch, rows, h, w): outputs of ``weight`` (rows, inputs, kh, kw), ``bias`` (rows,) in groups ``group``
        (rows,) ascending.
        """
        if self.groups == 1:
            return self._convolve(x, weight, bias)
        counts = torch.bincount(group, minlength=self.groups)
        width = int(counts.max())
        starts = torch.cumsum(counts, 0) - counts
        place = group * width + torch.arange(len(group), device=group.device) - starts[group]
        padded = weight.new_zeros(self.groups * width, *weight.shape[1:]).index_copy(0, place, weight)
        padded_bias = bias.new_zeros(self.groups * width).index_copy(0, place, bias)
        return self._convolve(x, padded, padded_bias).index_select(1, place)

    def tokens(self, values: Tensor, batch: int) -> Tensor:
        """(batch, locations, channels) of (batch, channels, h, w), row by row.

        Raises:
            UnsupportedLayerError: if the first axis is not the batch: the layer then does not work image by image.
        """
        if values.shape[0] != batch:
            raise UnsupportedLayerError(
                f"A split layer saw {values.shape[0]} rows for a batch of {batch} images.",
                "Split a layer that sees each image by itself.",
            )
        return values.flatten(2).transpose(1, 2)

    def image(self, values: Tensor, index: int, batch: int) -> Tensor:
        """The part of the layer's input or output that belongs to one image, as a batch of one."""
        return values[index : index + 1]

    def untokens(self, values: Tensor, like: Tensor) -> Tensor:
        """(locations, units) in the shape of ``like``, the layer's output for one image."""
        return values.transpose(0, 1).reshape(like.shape)

    def merge(self, values: Tensor, parent: Tensor, units: int) -> Tensor:
        """(batch, units, h, w): sum of each unit's sub-units (batch, sub_units, h, w)."""
        batch, _, *size = values.shape
        return values.new_zeros(batch, units, *size).index_add(1, parent, values)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        result: Tensor = functional_call(self.template, {"weight": weight, "bias": bias}, (x,))
        return result
