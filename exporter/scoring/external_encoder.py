"""MS-Scores in the space of another network, which knows nothing of the layer that was split.

The embedding of an image is the other network's pooled feature of the whole image, so it tells
scenes and things apart better than parts of them: a score on the layer's own output looks at one
token, this one does not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elude.exporter.images import ImageSource
from elude.exporter.models.device import device_of
from elude.exporter.models.load import LoadedModel
from elude.exporter.progress import Progress


def embed(
    encoder: LoadedModel, images: ImageSource, *, batch_size: int = 64, progress: Progress | None = None
) -> NDArray[np.float64]:
    """float64 (images, dimensions): the encoder's pooled features.

    Args:
        encoder: any model of ``elude.exporter.models.load.load_model``; its classifier is not used.
        images: in order.
        batch_size: images per forward pass.
        progress: called with (images done, images).
    """
    found, device = [], device_of(encoder.module)
    with torch.inference_mode():
        for start, pixels in images.batches(encoder.preprocess, batch_size):
            features = _features(encoder.module, torch.from_numpy(pixels).to(device))
            found.append(features.flatten(1).cpu().double().numpy())
            if progress is not None:
                progress(start + len(pixels), len(images))
    return np.concatenate(found)


def _features(module: nn.Module, pixels: Tensor) -> Tensor:
    """timm's way to the features behind the classifier."""
    features: Tensor = module.forward_head(module.forward_features(pixels), pre_logits=True)  # type: ignore[operator]
    return features
