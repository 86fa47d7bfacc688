"""How strongly each sub-unit of a finished bundle answers to each image, by the very session that serves it.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elude.exporter.images import ImageSource, open_images
from elude.exporter.models.options import EMBEDDED, EMBEDDED_FOLDER
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess


@dataclass(frozen=True)
class BundleActivity:
    """Activations over the images.

    Attributes:
        images: the images, in order.
        peak: float32 (images, sub-units), the largest activation over the tokens of each image,
            sub-units of all layers.
    """

    images: ImageSource
    peak: NDArray[np.float32]

    @property
    def classes(self) -> list[str | None]:
        """The class of each image."""
        return [entry.label for entry in self.images.entries]


def images_for(bundle: Bundle, path: str | Path | None) -> ImageSource | None:
    """The images at ``path``; without it those that the embedded model brings along, None for any other model."""
    if path is not None:
        return open_images(path)
    return open_images(EMBEDDED_FOLDER / "probe.tar") if bundle.manifest.source.model == EMBEDDED else None


def activity_of(
    bundle: Bundle,
    images: ImageSource,
    *,
    limit: int = 3_000,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> BundleActivity:
    """Run at most ``limit`` of the images, spread evenly, through the bundle's graph.

    Raises:
        UsageError: the bundle has no sub-units.
        ImageError: an image cannot be read.
    """
    session = GraphSession.of(bundle)
    if not session.sub_units:
        raise UsageError(f"{bundle.root} has no sub-units.", "Export it with a layer to split.")
    images, preprocess = images.limited(limit), Preprocess.from_json(bundle.json("preprocess.json"))
    peak = np.empty((len(images), session.sub_units), np.float32)
    for start, pixels in images.batches(preprocess, batch_size):
        found = session.run(pixels, inspect=True).sub_units
        peak[start : start + len(pixels)] = np.concatenate(
            [found[layer.name].max(axis=1) for layer in session.layers], axis=1
        )
        if progress is not None:
            progress(start + len(pixels), len(images))
    return BundleActivity(images, peak)
