"""What each sub-unit does to each class: its logits with the sub-unit, less those without it, on the images where it
is strongest.

Measured by ablation in the bundle's own graph, the same as ``inspect`` by effect: nothing is
approximated, also not the norm behind the layer or any layer after it. But it holds for these
images; on others the effect scales with the activation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from elude.exporter.scoring.bundle_activity import BundleActivity
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.images.preprocess import Preprocess

BATCH = 32


def class_effects(
    bundle: Bundle, activity: BundleActivity, each: int, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float32] | None:
    """float32 (sub-units, classes): mean over the ``each`` strongest images, NaN for sub-units never above 0;

    None without classes.
    """
    session = GraphSession.of(bundle)
    if session.output_name == "embedding" or each < 1:
        return None
    preprocess = Preprocess.from_json(bundle.json("preprocess.json"))
    strongest = np.argsort(-activity.peak, axis=0, kind="stable")[:each].T
    rows = [
        (index, int(image))
        for index, images in enumerate(strongest)
        for image in images
        if activity.peak[image, index] > 0
    ]
    pixels = {image: activity.images.pixels(image, preprocess) for image in sorted({image for _, image in rows})}
    plain: dict[int, NDArray[np.float32]] = {}
    order = list(pixels)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        output = session.run(preprocess.normalise(np.stack([pixels[image] for image in part]))).output
        plain |= dict(zip(part, output, strict=True))
    classes = next(iter(plain.values())).shape[0] if plain else 0
    total, count = np.zeros((session.sub_units, classes), np.float64), np.zeros(session.sub_units, np.int64)
    for start in range(0, len(rows), BATCH):
        chunk = rows[start : start + BATCH]
        batch = preprocess.normalise(np.stack([pixels[image] for _, image in chunk]))
        output = session.run(batch, [[Edit.ablate(index)] for index, _ in chunk]).output
        for (index, image), without in zip(chunk, output, strict=True):
            total[index] += plain[image] - without
            count[index] += 1
        if progress is not None:
            progress(start + len(chunk), len(rows))
    mean: NDArray[np.float32] = np.divide(
        total, count[:, None], out=np.full_like(total, np.nan), where=count[:, None] > 0
    ).astype(np.float32)
    return mean
