"""The passes over the images: one decode and one clean forward pass of each subject feed every dimension that needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from handlers.preprocess import Preprocess
from quality.corruptions import corrupt
from quality.image_sets import ImageSet
from quality.subjects import Images, Subject

Progress = Callable[[str, int, int], None]
Attack = Callable[[Images, NDArray[np.int64], NDArray[np.int64]], Mapping[str, Images]]


@dataclass(frozen=True)
class Plan:
    """What to look at.

    Attributes:
        corruptions: (name, severity) pairs.
        subset: int64, sorted, the images that the costly passes are limited to.
        seed: of the corruptions.
        batch_size: images a forward pass.
        keep_pixels: whether the subset's pixels are needed afterwards.
    """

    corruptions: Sequence[tuple[str, int]]
    subset: NDArray[np.int64]
    seed: int
    batch_size: int
    keep_pixels: bool = False


@dataclass
class Observations:
    """What the passes saw; M is the number of images in the subset.

    Attributes:
        labels: int64 (N,).
        outputs: subject to float32 (N, C) on the clean images.
        corrupted: subject to condition to bool (M,), whether the answer was right.
        attacked: subject to attack to bool (M,).
        pixels: uint8 (M, H, W, 3), if asked for.
        forwards: images that went through each subject.
    """

    labels: NDArray[np.int64]
    outputs: dict[str, NDArray[np.float32]]
    corrupted: dict[str, dict[tuple[str, int], NDArray[np.bool_]]] = field(default_factory=dict)
    attacked: dict[str, dict[str, NDArray[np.bool_]]] = field(default_factory=dict)
    pixels: NDArray[np.uint8] | None = None
    forwards: int = 0


def observe(
    subjects: Mapping[str, Subject],
    images: ImageSet,
    preprocess: Preprocess,
    classes: Sequence[str],
    plan: Plan,
    *,
    attack: Attack | None = None,
    progress: Progress | None = None,
) -> Observations:
    """Stream the images once through all ``subjects``: decoded once, corrupted and attacked once for all of them."""
    labels: list[NDArray[np.int64]] = []
    outputs: dict[str, list[NDArray[np.float32]]] = {name: [] for name in subjects}
    corrupted: dict[str, dict[tuple[str, int], list[NDArray[np.bool_]]]] = {
        name: {key: [] for key in plan.corruptions} for name in subjects
    }
    attacked: dict[str, dict[str, list[NDArray[np.bool_]]]] = {name: {} for name in subjects}
    pixels: list[NDArray[np.uint8]] = []
    seen, forwards = 0, 0
    for batch in images.batches(preprocess, classes, plan.batch_size):
        clean = as_unit(batch.pixels)
        for name, subject in subjects.items():
            outputs[name].append(subject.outputs(clean))
        labels.append(batch.labels)
        forwards += len(clean)
        chosen = np.isin(batch.numbers, plan.subset)
        if chosen.any():
            kept, kept_labels, numbers = batch.pixels[chosen], batch.labels[chosen], batch.numbers[chosen]
            if plan.keep_pixels:
                pixels.append(kept)
            for key in plan.corruptions:
                changed = as_unit(corrupt(kept, *key, numbers=numbers.tolist(), seed=plan.seed))
                for name, subject in subjects.items():
                    corrupted[name][key].append(subject.outputs(changed).argmax(axis=1) == kept_labels)
                forwards += len(kept)
            if attack is not None:
                for kind, adversarial in attack(clean[chosen], kept_labels, numbers).items():
                    for name, subject in subjects.items():
                        attacked[name].setdefault(kind, []).append(subject.outputs(adversarial).argmax(axis=1) == kept_labels)
                    forwards += len(kept)
        seen += len(clean)
        if progress is not None:
            progress("images", seen, len(images))
    return Observations(
        np.concatenate(labels),
        {name: np.concatenate(parts) for name, parts in outputs.items()},
        {name: {key: np.concatenate(parts) for key, parts in of.items()} for name, of in corrupted.items()},
        {name: {key: np.concatenate(parts) for key, parts in of.items()} for name, of in attacked.items()},
        np.concatenate(pixels) if plan.keep_pixels else None,
        forwards,
    )


def outputs_of(subject: Subject, pixels: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
    """float32 (N, C) of uint8 (N, H, W, 3) pixels, batch after batch."""
    return np.concatenate([subject.outputs(as_unit(pixels[i : i + batch_size])) for i in range(0, len(pixels), batch_size)])


def as_unit(pixels: NDArray[np.uint8]) -> Images:
    """float32 (N, 3, H, W) in [0, 1] of uint8 (N, H, W, 3)."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1)).astype(np.float32) / np.float32(255)
