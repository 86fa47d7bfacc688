"""A model ready to be split, whatever it was loaded from."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import nn

from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import CLASSES
from elude.handlers.images.preprocess import Preprocess


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be split.

    Attributes:
        module: in eval mode, float32, no parameter requires a gradient; from (N, C, H, W) to (N, outputs).
        preprocess: what it expects of an image.
        labels: names of its outputs, or None where they have none.
        source: where it came from.
        kind: what its outputs mean, one of ``elude.handlers.bundle.output_kinds.OUTPUT_KINDS``.
    """

    module: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    source: Source
    kind: str = CLASSES

    @property
    def parameters(self) -> int:
        """How many numbers the model has learnt."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def weights_sha256(module: nn.Module) -> str:
    """sha256 over the state dict: name, dtype, shape and bytes of each tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def crop_share(crop: int, shorter: int) -> float:
    """``Preprocess.crop_pct`` of a crop after the shorter side was resized: ``floor(crop / share)`` is ``shorter``."""
    share = crop / shorter
    while math.floor(crop / share) < shorter:  # the division may fall just below the whole number
        share = math.nextafter(share, 0.0)
    return share
