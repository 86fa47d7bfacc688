"""One small forward pass before any work: which layers run, in which order, with how many tokens, and the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elude.exporter.models.device import device_of
from elude.exporter.models.hooks import watching
from elude.handlers.errors import UnsupportedLayerError

IMAGES = 2  # one would not tell an axis of images from an axis of size 1


@dataclass(frozen=True)
class Trial:
    """What a forward pass of a small batch showed.

    Attributes:
        order: paths of the watched modules in the order of their first call.
        calls: path → number of calls.
        rows: path → vectors of features per image that the module returned, 0 where they cannot be dealt out to images.
        output: what the model returned.
    """

    order: tuple[str, ...]
    calls: Mapping[str, int]
    rows: Mapping[str, int]
    output: Any


def try_out(model: nn.Module, input_size: tuple[int, int, int], watched: Mapping[str, nn.Module]) -> Trial:
    """Run seeded noise through the model.

    Args:
        model: in eval mode.
        input_size: (channels, H, W).
        watched: modules of the model, by path.

    Raises:
        UnsupportedLayerError: the model does not run on images of that size.
    """
    calls: dict[str, int] = {}
    rows: dict[str, int] = {}

    def record(name: str, module: nn.Module, _args: object, output: object) -> None:
        calls[name] = calls.get(name, 0) + 1
        if isinstance(output, Tensor):
            rows[name] = _rows_per_image(module, output)

    noise = torch.randn(IMAGES, *input_size, generator=torch.Generator().manual_seed(0)).to(device_of(model))
    try:
        with torch.inference_mode(), watching(watched, record):
            output = model(noise)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
        size = "×".join(map(str, input_size))
        raise UnsupportedLayerError(
            f"The model cannot be run on images of {size}: {type(error).__name__}: {_first_line(error)}",
            "Give the input size that it takes: it is part of the preprocessing.",
        ) from error
    return Trial(tuple(calls), calls, rows, output)


def _rows_per_image(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0, 0].numel() if output.ndim == 4 and len(output) == IMAGES else 0
    vectors = output.numel() // output.shape[-1]
    return vectors // IMAGES if vectors % IMAGES == 0 and output.ndim > 1 else 0


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
