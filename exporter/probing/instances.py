"""Which tokens of an image are kept, and what a layer looked at to compute them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same

from elude.exporter.models.layers import Layer
from elude.exporter.models.tokens import to_tokens
from elude.exporter.probing.probe_store import Kept, chosen_tokens


def keep(layer: Layer, call: tuple[Tensor, Tensor], hashes: Sequence[str], per_image: int, seed: int) -> Kept:
    """Some instances of each image of a batch.

    Args:
        layer: the layer.
        call: its input and output.
        hashes: sha256 of each image of the batch, hexadecimal, which with the seed decides what is kept.
        per_image: instances of each; all where the layer has no more.
        seed: of the choice.
    """
    batch = len(hashes)
    x, z = call[0], to_tokens(call[1], layer, batch)
    kept = min(per_image, z.shape[1])
    tokens = chosen_tokens(hashes, z.shape[1], kept, seed)
    image, token = torch.arange(batch).repeat_interleave(kept), torch.from_numpy(tokens)
    inputs = gather_inputs(layer, x, image, token, batch).cpu().numpy()
    return Kept(inputs, z[image, token].cpu().numpy(), tokens, mean_input(layer, x, batch).cpu().numpy())


def mean_input(layer: Layer, x: Tensor, batch: int) -> Tensor:
    """(batch, groups * inputs), the mean of a layer's input (N, ..., inputs) or (N, channels, h, w) over an image."""
    if isinstance(layer.module, nn.Linear):
        return x.reshape(batch, -1, layer.inputs).mean(dim=1)
    return x.mean(dim=(2, 3))


def gather_inputs(layer: Layer, x: Tensor, image: Tensor, token: Tensor, batch: int) -> Tensor:
    """What a layer looks at to make some of its outputs.

    Args:
        layer: the layer.
        x: its whole input: (N, ..., inputs) or (N, channels, h, w).
        image: int64 (instances,), row of the batch.
        token: int64 (instances,), as ``to_tokens`` counts them.
        batch: number of images.

    Returns:
        (instances, groups * inputs, window), the kernel's positions row by row as in the weight.
    """
    if isinstance(layer.module, nn.Linear):
        return x.reshape(batch, -1, layer.inputs)[image, token].unsqueeze(-1)
    conv = layer.module
    if type(conv) is Conv2dSame:
        x = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
    else:
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = functional.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = conv.kernel_size, conv.stride, conv.dilation
    width = (x.shape[3] - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    row = (token // width * stride_h)[:, None] + torch.arange(kernel_h) * dilation_h
    column = (token % width * stride_w)[:, None] + torch.arange(kernel_w) * dilation_w
    windows = x[
        image[:, None, None], :, row[:, :, None], column[:, None, :]
    ]  # (instances, kernel_h, kernel_w, channels)
    return windows.flatten(1, 2).transpose(1, 2)
