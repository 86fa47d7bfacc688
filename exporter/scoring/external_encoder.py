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
from elude.exporter.models.load import LoadedModel
from elude.exporter.progress import Progress
from elude.exporter.scoring.activity import Activity
from elude.exporter.scoring.ms_score import peak_weights, ratio


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
    found = []
    with torch.inference_mode():
        for start, pixels in images.batches(encoder.preprocess, batch_size):
            found.append(_features(encoder.module, torch.from_numpy(pixels)).flatten(1).double().numpy())
            if progress is not None:
                progress(start + len(pixels), len(images))
    return np.concatenate(found)


def _features(module: nn.Module, pixels: Tensor) -> Tensor:
    """timm's way to the features behind the classifier."""
    features: Tensor = module.forward_head(module.forward_features(pixels), pre_logits=True)  # type: ignore[operator]
    return features


def external_scores(activity: Activity, embeddings: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """float64 (features,): MS-Score of each feature's ``top`` images by ``embeddings`` (images, dimensions);

    NaN where 0/0.

    Give embeddings less their mean for the centred score.
    """
    order, weights = activity.strongest(top), peak_weights(activity, top)
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = np.divide(embeddings, length, out=np.zeros_like(embeddings), where=length > 0)
    numerator = np.empty(order.shape[1])
    for feature in range(order.shape[1]):
        rows = unit[order[:, feature]] * weights[:, feature, None]
        numerator[feature] = np.square(rows.sum(axis=0)).sum() - np.square(rows).sum()
    return ratio(numerator, weights)
