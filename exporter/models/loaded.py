"""A model ready to be split, whatever it was loaded from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import CLASSES
from elude.handlers.errors import UsageError
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


def weights_sha256(module: nn.Module) -> str:
    """sha256 over the state dict: name, dtype, shape and bytes of each tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def label_names(labels: Sequence[str] | Mapping[int, str] | Mapping[str, str], outputs: int) -> tuple[str, ...]:
    """One name per output.

    Args:
        labels: names in the order of the outputs, or number of the output → name, whose gaps get their number.
        outputs: how many there are.

    Raises:
        UsageError: too few, too many, or a number that is not an output's.
    """
    if isinstance(labels, Mapping):
        try:
            numbered = {int(number): str(name) for number, name in labels.items()}
        except ValueError as error:
            raise UsageError(f"Labels are numbered by {error}.", "Give a number of an output for each name.") from error
        if strange := [number for number in numbered if not 0 <= number < outputs]:
            raise UsageError(f"There is a label for output {strange[0]}; the model has {outputs} outputs.")
        return tuple(numbered.get(number, str(number)) for number in range(outputs))
    if isinstance(labels, str) or len(labels) != outputs:
        count = 1 if isinstance(labels, str) else len(labels)
        raise UsageError(
            f"There are {count} labels for {outputs} outputs.", "Give one name per output, in the order of the outputs."
        )
    return tuple(str(name) for name in labels)


def crop_share(crop: int, shorter: int) -> float:
    """``Preprocess.crop_pct`` of a crop after the shorter side was resized: ``floor(crop / share)`` is ``shorter``."""
    share = crop / shorter
    while math.floor(crop / share) < shorter:  # the division may fall just below the whole number
        share = math.nextafter(share, 0.0)
    return share
