"""A suite: the images a model is measured on, and what is made of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from elude.handlers.errors import UsageError
from elude.quality.suites.corruptions import CORRUPTIONS, SEVERITIES
from elude.quality.suites.image_sets import ImageSet

OWN, IMAGENET_1K = "own", "imagenet-1k"
MEAN, TOP1 = "mean", "top1"
QUICK_CORRUPTIONS = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "jpeg_compression")


@dataclass(frozen=True)
class ShiftedSet:
    """Images of another kind than the validation images.

    Attributes:
        name: of the shift, such as "sketch".
        images: labelled with the model's classes, or with ``categories`` if given.
        categories: for sets with coarser labels, (category, its classes) in order.
        decision: how an answer becomes a category: ``mean``, the highest mean probability of its
            classes (model-vs-human); ``top1``, the category of the most probable class, which may
            be none (ImageNet-9).
        classes: the model's classes that occur; only their outputs compete. None for all.
    """

    name: str
    images: ImageSet
    categories: tuple[tuple[str, tuple[str, ...]], ...] | None = None
    classes: tuple[str, ...] | None = None
    decision: str = MEAN


@dataclass(frozen=True)
class Suite:
    """What to measure on.

    Attributes:
        name: for reports.
        images: the labelled validation images.
        corruptions: which of the fifteen to make, at all ``severities``.
        severities: of 1 to 5.
        protocol: ``imagenet-1k`` if the published protocol is followed, which alone makes an
            absolute QUBA score meaningful; else ``own``.
        dark_background: whether objects stand on black, so that masks can be derived from brightness:
            then mixed backgrounds, cue-conflict images and the shifted sets edge, silhouette and
            sketch are made from the images.
        shifted: further sets for out-of-distribution robustness.
        mixed: ready images with backgrounds of the same and of other classes, in the same order;
            used instead of made ones.
        cue_conflict: ready files in a folder per shape, named SHAPE-TEXTURE; used instead of made ones.
        corrupted: ready corrupted images, (corruption, severity) to the same images in the same
            order; used instead of made ones.
        outputs: the names of the model's outputs in order, where the sets name them differently from
            the model (synsets).
    """

    name: str
    images: ImageSet
    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = SEVERITIES
    protocol: str = OWN
    dark_background: bool = False
    shifted: tuple[ShiftedSet, ...] = ()
    mixed: tuple[ShiftedSet, ShiftedSet] | None = None
    cue_conflict: ShiftedSet | None = None
    corrupted: tuple[tuple[str, int, ImageSet], ...] = ()
    outputs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.corruptions if name not in CORRUPTIONS]
        if unknown:
            raise UsageError(f"{unknown[0]!r} is not a corruption.", f"Use some of {', '.join(CORRUPTIONS)}.")
        if not set(self.severities) <= set(SEVERITIES) or not self.severities:
            raise UsageError(f"Severities are 1 to 5, not {self.severities}.", "Name at least one.")
        if self.protocol not in (OWN, IMAGENET_1K):
            raise UsageError(f"There is no protocol {self.protocol!r}.", f"Use {OWN!r} or {IMAGENET_1K!r}.")
        if len(self.images) == 0:
            raise UsageError(f"The suite {self.name!r} has no images.", "Give at least one.")
        for name, severity, images in self.corrupted:
            if len(images) != len(self.images):
                raise UsageError(
                    f"{name}/{severity} of the suite {self.name!r} has {len(images)} images, not {len(self.images)}.",
                    "Corrupted sets hold the same images as the clean one.",
                )

    def quick(self) -> Suite:
        """The same with five of the fifteen corruptions."""
        corruptions = tuple(name for name in QUICK_CORRUPTIONS if name in self.corruptions)
        return replace(
            self, corruptions=corruptions, corrupted=tuple(item for item in self.corrupted if item[0] in corruptions)
        )

    def sha256(self) -> str:
        """Hash of the images and of what is made of them: equal hashes, equal suites."""
        digest = hashlib.sha256(
            repr((self.corruptions, self.severities, self.protocol, self.dark_background, self.outputs)).encode()
        )
        digest.update(self.images.sha256().encode())
        for shift in (*self.shifted, *(self.mixed or ()), *((self.cue_conflict,) if self.cue_conflict else ())):
            digest.update(
                repr((shift.name, shift.categories, shift.classes, shift.decision, shift.images.sha256())).encode()
            )
        for name, severity, images in self.corrupted:
            digest.update(repr((name, severity, images.sha256())).encode())
        return digest.hexdigest()
