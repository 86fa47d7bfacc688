"""Mixed-same and mixed-rand backgrounds, and cue-conflict images, composed from masks and textures of the images
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.quality.suites.builders.donors import choose, usable
from elude.quality.suites.builders.textures import largest_squares, tiled


@dataclass(frozen=True)
class Objects:
    """Images whose mask holds an object with a texture, from which others are composed, a few at a time.

    Attributes:
        pixels: uint8 (M, H, W, 3).
        labels: int64 (M,).
        masks: bool (M, H, W).
        squares: int64 (M, 3), the largest square inside each mask: top, left, side.
        numbers: int64 (M,), their places among the images they were taken from.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    squares: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], labels: NDArray[np.int64], masks: NDArray[np.bool_]) -> Objects:
        """From uint8 (N, H, W, 3), int64 (N,), bool (N, H, W).

        Raises:
            EvaluationError: if there is no object.
        """
        squares = largest_squares(masks)
        numbers = usable(masks, squares)
        return cls(pixels[numbers], labels[numbers], masks[numbers], squares[numbers], numbers)

    def __len__(self) -> int:
        return len(self.pixels)

    def donors(self, seed: int, *, same: bool) -> NDArray[np.int64]:
        """int64 (M,): whose texture each gets, an object of the same or of another class.

        Raises:
            EvaluationError: if a class has only one object, or there is no other class.
        """
        return choose(self.labels, seed, same=same)

    def on_backgrounds(self, donors: NDArray[np.int64], start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """uint8: the objects ``start`` up to ``stop``, each on the tiled texture of its donor."""
        rows = slice(start, stop)
        return np.where(self.masks[rows][..., None], self.pixels[rows], self._textures(donors[rows]))

    def filled(self, donors: NDArray[np.int64], start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """uint8: the shapes of the objects ``start`` up to ``stop``, filled with their donors' textures; the
        background stays.
        """
        rows = slice(start, stop)
        return np.where(self.masks[rows][..., None], self._textures(donors[rows]), self.pixels[rows])

    def _textures(self, donors: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([tiled(self.pixels[j], self.squares[j]) for j in donors])


@dataclass(frozen=True)
class MixedBackgrounds:
    """The same objects on two backgrounds: uint8 (M, H, W, 3) each, and int64 (M,) their classes and numbers among
    the images.
    """

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


def background_donors(objects: Objects, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Donors of mixed-same and of mixed-rand."""
    return objects.donors(seed, same=True), objects.donors(seed + 1, same=False)


def mixed_backgrounds(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], masks: NDArray[np.bool_], seed: int = 0
) -> MixedBackgrounds:
    """Put each object on the tiled texture of another object, once of its own class and once of another one.

    After ImageNet-9's mixed-same and mixed-rand (Xiao et al. 2021), with textures for backgrounds,
    as objects on black have no other.

    Args:
        pixels: uint8 (N, H, W, 3).
        labels: int64 (N,).
        masks: bool (N, H, W).
        seed: of the choice of textures.

    Raises:
        EvaluationError: if there is no object, or a class has only one.
    """
    objects = Objects.of(pixels, labels, masks)
    same, rand = (objects.on_backgrounds(donors) for donors in background_donors(objects, seed))
    return MixedBackgrounds(same, rand, objects.labels, objects.numbers)


def cue_conflict(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], masks: NDArray[np.bool_], seed: int = 0
) -> CueConflict:
    """Fill the shape of each object with the tiled texture of an object of another class; the background stays.

    After Geirhos et al. 2019, who transfer the texture by a neural network instead.

    Args and errors as in :func:`mixed_backgrounds`.
    """
    objects = Objects.of(pixels, labels, masks)
    donors = objects.donors(seed, same=False)
    return CueConflict(objects.filled(donors), objects.labels, objects.labels[donors])
