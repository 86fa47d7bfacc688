"""Batches of images through a model, with its layers' inputs and outputs: the one loop of every pass over images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from elude.exporter.images import ImageSource
from elude.exporter.models.device import device_of
from elude.exporter.models.hooks import watching
from elude.exporter.models.layers import Layer
from elude.exporter.progress import Progress
from elude.handlers.errors import UnsupportedLayerError
from elude.handlers.images.preprocess import Preprocess

Calls = Mapping[str, tuple[Tensor, Tensor]]  # layer → its input and output
Visit = Callable[[int, int, Calls], None]

# On the CPU larger passes only cost page faults: EfficientNet-Lite0 at 224 x 224 takes 77 ms of CPU time per image in
# batches of 64, 46 in batches of 16, 29 in batches of 8, 30 in batches of 4; a ViT-S takes the same in all.
CPU_PIXELS = 8 * 224**2


def walk(
    model: nn.Module,
    layers: Sequence[Layer],
    images: ImageSource,
    preprocess: Preprocess,
    visit: Visit,
    *,
    batch_size: int,
    first: int = 0,
    progress: Progress | None = None,
) -> None:
    """Run the images through the model once.

    Args:
        model: in eval mode, on any device; what ``visit`` gets is on the same.
        layers: of that model.
        images: in order.
        preprocess: of the model.
        visit: called in inference mode with (position of the batch's first image, number of its
            images, calls of the layers).
        batch_size: images per forward pass, at most; on the CPU fewer large ones.
        first: the image to begin with.
        progress: called with (images done, images) after each batch.

    Raises:
        UnsupportedLayerError: a layer does not run exactly once per forward pass.
        ImageError: an image cannot be read.
    """
    device = device_of(model)
    batch_size = pass_size(batch_size, device, preprocess)
    with torch.inference_mode(), watch(layers) as seen:
        for start, pixels in images.batches(preprocess, batch_size, first=first):
            seen.clear()
            model(torch.from_numpy(pixels).to(device))
            visit(start, len(pixels), {layer.name: _once(layer, seen) for layer in layers})
            if progress is not None:
                progress(start + len(pixels), len(images))


def pass_size(batch_size: int, device: torch.device, preprocess: Preprocess) -> int:
    """Images per forward pass: ``batch_size``, and on the CPU at most ``CPU_PIXELS``."""
    if device.type != "cpu":
        return batch_size
    return min(batch_size, max(1, CPU_PIXELS // math.prod(preprocess.input_size[1:])))


@contextmanager
def watch(layers: Sequence[Layer]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """While inside, record copies of input and output of each call of each layer, by the layer's path; the reader
    clears it.
    """
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def record(name: str, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # copies: what follows, or the layer before, may work in place and overwrite them before they are read
        seen.setdefault(name, []).append((args[0].clone(), output.clone()))

    with watching({layer.name: layer.module for layer in layers}, record):
        yield seen


def _once(layer: Layer, seen: Mapping[str, list[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    """Input and output of the layer's only call; refuses as ``require_one_call``."""
    calls = seen.get(layer.name, [])
    require_one_call(layer.name, len(calls))
    return calls[0]


def require_one_call(name: str, calls: int) -> None:
    """Refuse a layer that does not run exactly once per forward pass.

    Raises:
        UnsupportedLayerError: it ran more than once, or not at all (its parent uses its weights without calling it).
    """
    if calls != 1:
        reason = f"it runs {calls} times in one forward pass" if calls else "the model never calls it as a module"
        raise UnsupportedLayerError(f"Layer {name!r} cannot be split: {reason}.", "Choose another layer.")
