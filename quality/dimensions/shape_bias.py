"""Shape bias: of the answers to cue-conflict images that name their shape or their texture, the share that name the
shape.

(Geirhos et al. 2019.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.result import DimensionResult
from elude.quality.statistics.intervals import RESAMPLES, wilson_interval


def shape_bias(
    predictions: NDArray[np.int64],
    shapes: NDArray[np.int64],
    textures: NDArray[np.int64],
    names: list[str] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> DimensionResult:
    """n_shape / (n_shape + n_texture).

    Args:
        predictions: int64 (N,), class or category of each answer.
        shapes: int64 (N,), the class of the shape.
        textures: int64 (N,), the class of the texture, another one.
        names: of the classes, for the table.
        resamples: 0 for no interval, as in the other dimensions; this one needs no resampling.

    Returns:
        value in [0, 1]; factors ``shape``, ``texture`` and ``neither``, shares of all images; table ``per_shape``.

    Raises:
        EvaluationError: if an image has no conflict, or no answer names shape or texture.
    """
    if len(predictions) == 0 or np.any(shapes == textures):
        raise EvaluationError(
            "Cue-conflict images have a shape and a texture of different classes.", "Leave the others out."
        )
    answers = np.stack([predictions == shapes, predictions == textures], axis=1)
    by_shape, by_texture = answers.sum(axis=0)
    if by_shape + by_texture == 0:
        raise EvaluationError(
            "Shape bias is undefined: no answer names the shape or the texture.", "Check the labels of the images."
        )
    table: dict[str, float | None] = {}
    for c in np.unique(shapes):
        shape, texture = answers[shapes == c].sum(axis=0)
        table[names[c] if names else str(c)] = float(shape / (shape + texture)) if shape + texture else None
    images = len(predictions)
    return DimensionResult(
        float(by_shape / (by_shape + by_texture)),
        HIGHER_IS_BETTER["shape_bias"],
        images,
        wilson_interval(int(by_shape), int(by_shape + by_texture))
        if resamples
        else None,  # given how many answers name one of the two
        {
            "shape": float(by_shape / images),
            "texture": float(by_texture / images),
            "neither": float(1 - (by_shape + by_texture) / images),
        },
        {"per_shape": table},
    )
