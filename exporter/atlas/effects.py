"""What each sub-unit or concept does to each class: the logits with it, less those without it, on the images where it
is strongest.

Measured by ablation in the bundle's own graph, the same as ``inspect`` by effect: nothing is
approximated, also not the norm behind the layer or any layer after it. But it holds for these
images; on others the effect scales with the activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from elude.exporter.scoring.bundle_activity import BundleActivity
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.images.preprocess import Preprocess

BATCH = 32


def class_effects(
    bundle: Bundle,
    activity: BundleActivity,
    count: int,
    *,
    subjects: Sequence[Sequence[int]] | None = None,
    strength: NDArray[np.float32] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32] | None:
    """float32 (subjects, classes): mean over the ``count`` strongest images, NaN for what is never above 0; None
    without classes.

    Args:
        bundle: with a graph that can ablate.
        activity: of the bundle.
        count: strongest images of each subject; 0: nothing is measured.
        subjects: sets of sub-units that are ablated together, such as concepts; None: each sub-unit alone.
        strength: float32 (images, subjects), by which their images are chosen; None: that of ``activity``.
        progress: called with (rows run, rows).
    """
    session = GraphSession.of(bundle)
    if session.output_name == "embedding" or count < 1:
        return None
    subjects = [(index,) for index in range(session.sub_units)] if subjects is None else subjects
    strength = activity.peak if strength is None else strength
    preprocess = Preprocess.from_json(bundle.json("preprocess.json"))
    strongest = np.argsort(-strength, axis=0, kind="stable")[:count].T
    rows = [
        (number, int(image))
        for number, images in enumerate(strongest)
        for image in images
        if strength[image, number] > 0
    ]
    pixels = {image: activity.images.pixels(image, preprocess) for image in sorted({image for _, image in rows})}
    plain: dict[int, NDArray[np.float32]] = {}
    order = list(pixels)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        output = session.run(preprocess.normalise(np.stack([pixels[image] for image in part]))).output
        plain |= dict(zip(part, output, strict=True))
    classes = next(iter(plain.values())).shape[0] if plain else 0
    total, measured = np.zeros((len(subjects), classes), np.float64), np.zeros(len(subjects), np.int64)
    for start in range(0, len(rows), BATCH):
        chunk = rows[start : start + BATCH]
        batch = preprocess.normalise(np.stack([pixels[image] for _, image in chunk]))
        edits = [[Edit.ablate(index) for index in subjects[number]] for number, _ in chunk]
        output = session.run(batch, edits).output
        for (number, image), without in zip(chunk, output, strict=True):
            total[number] += plain[image] - without
            measured[number] += 1
        if progress is not None:
            progress(start + len(chunk), len(rows))
    mean: NDArray[np.float32] = np.divide(
        total, measured[:, None], out=np.full_like(total, np.nan), where=measured[:, None] > 0
    ).astype(np.float32)
    return mean
