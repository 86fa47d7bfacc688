"""What the layers to be split saw and gave on the probing images: one pass for all layers, a few tokens of each image.

Memory is bounded and taken at the first batch: ``min(tokens_per_image, T) * images * (groups * inputs * window + units) * 4`` bytes per
layer (T: tokens of the layer), beside one batch in flight. Which tokens are kept depends on the seed and the image's position only, never
on the batch size; layers with as many tokens as each other keep the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import exporter.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same

from exporter.images import ImageSource
from exporter.layers import Layer
from exporter.tokens import to_tokens
from handlers.errors import UnsupportedLayerError, UsageError
from handlers.preprocess import Preprocess

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Probe:
    """Activation instances of one layer, image after image, tokens ascending.

    Attributes:
        layer: path of the module.
        q: float32 (instances, groups * inputs, window), the layer's input at each instance; of a convolution the window it looks at.
        z: float32 (instances, units), its output before any nonlinearity.
        image: int64 (instances,), position of the image in the source.
        token: int64 (instances,), position of the token within the image.
    """

    layer: str
    q: NDArray[np.float32]
    z: NDArray[np.float32]
    image: NDArray[np.int64]
    token: NDArray[np.int64]


def collect(
    model: nn.Module,
    layers: Sequence[Layer],
    images: ImageSource,
    preprocess: Preprocess,
    *,
    tokens_per_image: int,
    seed: int,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> dict[str, Probe]:
    """Run the images through the model once and keep some instances of each layer.

    Args:
        model: in eval mode.
        layers: of that model.
        images: the probing set.
        preprocess: of the model.
        tokens_per_image: kept of each image, without repeats; all of them where the layer has no more.
        seed: of the choice.
        batch_size: images per forward pass; does not change which instances are kept.
        progress: called with (images done, images) after each batch.

    Returns:
        one probe per layer, by its path, in the order of ``layers``.

    Raises:
        UsageError: ``tokens_per_image`` or ``batch_size`` is below 1.
        UnsupportedLayerError: a layer does not run exactly once per forward pass.
        ImageError: an image cannot be read.
    """
    if tokens_per_image < 1 or batch_size < 1:
        raise UsageError(f"tokens_per_image is {tokens_per_image} and batch_size {batch_size}.", "Give at least 1 for both.")
    probes: dict[str, Probe] = {}
    with torch.inference_mode(), watch(layers) as seen:
        for start, pixels in images.batches(preprocess, batch_size):
            seen.clear()
            model(torch.from_numpy(pixels))
            for layer in layers:
                x, z = once(layer, seen)
                z = to_tokens(z, layer, len(pixels))
                if start == 0:
                    probes[layer.name] = _allocate(layer, z.shape[1], len(images), tokens_per_image)
                _keep(probes[layer.name], layer, start, (x, z), seed)
            if progress is not None:
                progress(start + len(pixels), len(images))
    return probes


@contextmanager
def watch(layers: Sequence[Layer]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """While inside, record copies of input and output of each call of each layer, by the layer's path; the reader clears it."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def record(name: str, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # copies: what follows, or the layer before, may work in place and overwrite them before they are read
        seen.setdefault(name, []).append((args[0].clone(), output.clone()))

    handles = [layer.module.register_forward_hook(partial(record, layer.name)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def once(layer: Layer, seen: dict[str, list[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    """Input and output of the layer's only call.

    Raises:
        UnsupportedLayerError: it ran more than once, or not at all (its parent uses its weights without calling it).
    """
    calls = seen.get(layer.name, [])
    if len(calls) != 1:
        reason = f"it runs {len(calls)} times in one forward pass" if calls else "the model never calls it as a module"
        raise UnsupportedLayerError(f"Layer {layer.name!r} cannot be split: {reason}.", "Choose another layer.")
    return calls[0]


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
    windows = x[image[:, None, None], :, row[:, :, None], column[:, None, :]]  # (instances, kernel_h, kernel_w, channels)
    return windows.flatten(1, 2).transpose(1, 2)


def _allocate(layer: Layer, tokens: int, images: int, per_image: int) -> Probe:
    kept = min(per_image, tokens)
    instances = images * kept
    return Probe(
        layer.name,
        np.empty((instances, layer.groups * layer.inputs, layer.window), np.float32),
        np.empty((instances, layer.units), np.float32),
        np.repeat(np.arange(images), kept),
        np.empty(instances, np.int64),
    )


def _keep(probe: Probe, layer: Layer, start: int, call: tuple[Tensor, Tensor], seed: int) -> None:
    """Fill the rows of one batch whose first image is ``start``, from the layer's input and its output as tokens."""
    x, z = call
    batch, tokens, _ = z.shape
    kept = int(np.count_nonzero(probe.image == 0))
    choice = [np.sort(np.random.default_rng([seed, start + image]).choice(tokens, kept, replace=False)) for image in range(batch)]
    rows = slice(start * kept, (start + batch) * kept)
    probe.token[rows] = np.concatenate(choice)
    image, token = torch.arange(batch).repeat_interleave(kept), torch.from_numpy(probe.token[rows])
    probe.q[rows] = gather_inputs(layer, x, image, token, batch).numpy()
    probe.z[rows] = z[image, token].numpy()
