"""The sets that are made from objects on a dark background, a batch at a time, so that they are jobs like any other
set's.

What an image of them looks like depends on all images of the subset, as any of them may lend its
texture. So they come after the clean pass, which has decoded the subset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from elude.handlers.images.preprocess import Preprocess
from elude.quality.suites.builders.composites import Objects, background_donors
from elude.quality.suites.builders.masks import dark_background_masks
from elude.quality.suites.builders.shifts import SHIFTS
from elude.quality.suites.image_sets import Batch, InBatches, PixelSet
from elude.quality.suites.suite import ShiftedSet

MADE = "made"
Make = Callable[[int, int], NDArray[np.uint8]]


@dataclass(frozen=True)
class MadeSet(InBatches):
    """Images that ``make(start, stop)`` composes when they are needed; int64 (N,) ``labels`` are numbers of the
    model's outputs.
    """

    make: Make
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, preprocess: Preprocess, classes: Sequence[str], start: int, stop: int) -> Batch:
        return Batch(np.arange(start, stop, dtype=np.int64), self.make(start, stop), self.labels[start:stop])

    def chosen(self, numbers: NDArray[np.int64]) -> PixelSet:
        parts = [self.make(int(n), int(n) + 1) for n in numbers]
        return PixelSet(np.concatenate(parts), self.labels[numbers], self.classes)

    def class_of(self) -> list[str]:
        return [self.classes[label] for label in self.labels]

    def sha256(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(np.ascontiguousarray(self.labels).data)
        for start in range(0, len(self), 64):
            digest.update(np.ascontiguousarray(self.make(start, min(start + 64, len(self)))).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Made:
    """The sets by the name of their stage, and int64 (M,) the textures of the cue-conflict images, None without
    these.
    """

    sets: Mapping[str, ShiftedSet]
    textures: NDArray[np.int64] | None


def made_sets(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], *, classes: Sequence[str], wanted: Collection[str], seed: int
) -> Made:
    """The sets that the ``wanted`` dimensions need.

    Args:
        pixels: uint8 (M, H, W, 3), objects on black.
        labels: int64 (M,), numbers of ``classes``.
        classes: names of the model's outputs.
        wanted: dimensions.
        seed: of the choice of textures.

    Raises:
        EvaluationError: no image holds an object, or there are too few of a class.
    """
    sets: dict[str, ShiftedSet] = {}
    textures = None

    def add(name: str, make: Make, of: NDArray[np.int64]) -> None:
        stage = f"{MADE}/{name}"
        sets[stage] = ShiftedSet(stage, MadeSet(make, of, tuple(classes)))

    masks = dark_background_masks(pixels)
    if "ood_robustness" in wanted:
        for name in SHIFTS:
            add(f"shifted/{name}", partial(_shifted, name, pixels, masks), labels)
    if {"object_focus", "shape_bias"} & set(wanted):
        objects = Objects.of(pixels, labels, masks)
        if "object_focus" in wanted:
            for part, donors in zip(("same", "rand"), background_donors(objects, seed), strict=True):
                add(f"mixed/{part}", partial(objects.on_backgrounds, donors), objects.labels)
        if "shape_bias" in wanted:
            donors = objects.donors(seed, same=False)
            textures = objects.labels[donors]
            add("cue_conflict", partial(objects.filled, donors), objects.labels)
    return Made(sets, textures)


def _shifted(
    name: str, pixels: NDArray[np.uint8], masks: NDArray[np.bool_], start: int, stop: int
) -> NDArray[np.uint8]:
    return SHIFTS[name](pixels[start:stop], masks[start:stop])
