"""Convolutions that standardise their weights (timm's NFNets and BiT) as plain ones: at inference the weights are
constant, so they are computed once, by the same operations, and can be split.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame

_STANDARDISED = (StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame)


def as_plain(module: nn.Module) -> nn.Module:
    """Replace every standardising convolution in the module by a plain one with the same outputs, bit for bit."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _STANDARDISED:
                assert isinstance(child, nn.Conv2d)
                setattr(parent, name, _plain(child))
    return module


@torch.no_grad()
def standardised_weight(conv: nn.Conv2d) -> Tensor:
    """The weight that the convolution computes in each forward pass: zero mean and unit variance per output channel,
    times gain and scale where it has them.
    """
    gain, scale = getattr(conv, "gain", None), getattr(conv, "scale", None)
    weight = None if gain is None else (gain * scale).view(-1)
    rows, eps = conv.weight.reshape(1, conv.out_channels, -1), float(getattr(conv, "eps", 1e-6))
    result = functional.batch_norm(rows, None, None, weight=weight, training=True, momentum=0.0, eps=eps)
    return result.reshape_as(conv.weight)


def _plain(conv: nn.Conv2d) -> nn.Conv2d:
    kind: type[nn.Conv2d] = Conv2dSame if getattr(conv, "same_pad", False) else nn.Conv2d
    plain = kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
    )
    plain.weight = nn.Parameter(standardised_weight(conv), requires_grad=False)
    plain.bias = conv.bias
    return plain.train(conv.training)
