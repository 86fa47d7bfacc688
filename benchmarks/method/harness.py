"""Linear features of a layer's input, and where results are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.method.fetch import cache

T = TypeVar("T")


@dataclass(frozen=True)
class Family:
    """Linear features of the layer's input, units and sub-units alike: weight (features, inputs), bias (features,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.weight)

    def values(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """See ``benchmarks.method.held_out.Features``."""
        return inputs @ torch.from_numpy(self.weight).T + torch.from_numpy(self.bias)


def save(name: str, result: object) -> Path:
    """Keep a result as JSON in the cache."""
    path = cache() / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    return path


def kept(name: str, make: Callable[[], T]) -> T:
    """The result of that name from the cache; made, and kept, at the first call."""
    path = cache() / "results" / f"{name}.json"
    if not path.exists():
        save(name, make())
    result: T = json.loads(path.read_text())
    return result
