"""Mixed-same and mixed-rand backgrounds, and cue-conflict images, composed from masks and textures of the images themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quality.suites.builders.donors import choose, usable
from quality.suites.builders.textures import largest_squares, tiled


@dataclass(frozen=True)
class MixedBackgrounds:
    """The same objects on two backgrounds: uint8 (M, H, W, 3) each, and int64 (M,) their classes and numbers among the images."""

    same: NDArray[np.uint8]
    rand: NDArray[np.uint8]
    labels: NDArray[np.int64]
    numbers: NDArray[np.int64]


@dataclass(frozen=True)
class CueConflict:
    """uint8 (M, H, W, 3), and int64 (M,) the class of the shape and of the texture."""

    pixels: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    textures: NDArray[np.int64]


def mixed_backgrounds(pixels: NDArray[np.uint8], labels: NDArray[np.int64], masks: NDArray[np.bool_], seed: int = 0) -> MixedBackgrounds:
    """Put each object on the tiled texture of another object, once of its own class and once of another one.

    After ImageNet-9's mixed-same and mixed-rand (Xiao et al. 2021), with textures for backgrounds, as objects on black have no other.

    Args:
        pixels: uint8 (N, H, W, 3).
        labels: int64 (N,).
        masks: bool (N, H, W).
        seed: of the choice of textures.

    Raises:
        EvaluationError: if there is no object, or a class has only one.
    """
    squares = largest_squares(masks)
    numbers = usable(masks, squares)
    kept, squares, own = pixels[numbers], squares[numbers], labels[numbers]
    inside = masks[numbers][..., None]
    textures = np.stack([tiled(image, square) for image, square in zip(kept, squares, strict=True)])
    same = np.where(inside, kept, textures[choose(own, seed, same=True)])
    rand = np.where(inside, kept, textures[choose(own, seed + 1, same=False)])
    return MixedBackgrounds(same, rand, own, numbers)


def cue_conflict(pixels: NDArray[np.uint8], labels: NDArray[np.int64], masks: NDArray[np.bool_], seed: int = 0) -> CueConflict:
    """Fill the shape of each object with the tiled texture of an object of another class; the background stays.

    After Geirhos et al. 2019, who transfer the texture by a neural network instead.

    Args and errors as in :func:`mixed_backgrounds`.
    """
    squares = largest_squares(masks)
    numbers = usable(masks, squares)
    kept, squares, own = pixels[numbers], squares[numbers], labels[numbers]
    donors = choose(own, seed, same=False)
    textures = np.stack([tiled(kept[j], squares[j]) for j in donors])
    return CueConflict(np.where(masks[numbers][..., None], textures, kept), own, own[donors])
