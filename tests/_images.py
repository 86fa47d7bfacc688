"""Small seeded image sets on disk, imported by tests as ``from _images import ...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from elude.exporter.images import ImageSource, open_images
from elude.handlers.images.preprocess import Preprocess


def noise(root: Path, count: int, side: int, labels: Sequence[str] = ("a", "b"), seed: int = 0) -> ImageSource:
    """``count`` images of noise, dealt out to ``labels`` in turn."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        path = root / labels[index % len(labels)] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return open_images(root)


def plain(side: int) -> Preprocess:
    """Takes images of that size as they are, in [-1, 1]."""
    return Preprocess((3, side, side), "nearest", 1.0, "center", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
