"""Bins of the calibration error, over which sums of many simulated labels are taken at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.quality.statistics.intervals import Floats


@dataclass(frozen=True)
class Bins:
    """Which bins the probabilities of (N, C) outputs fall into.

    Sums over bins are vectors: first those of the top-1 confidences (count + 1,), then those of
        each class (C * count,).

    Attributes:
        count: of equal-mass bins, and of equal-width ones without the one for exactly 1.
        top1: int64 (N,), of the top-1 confidences.
        flat: int64 (N, C), of each probability among those of its class, numbered over all classes.
        answers: int64 (N,), the top-1 classes.
    """

    count: int
    top1: NDArray[np.int64]
    flat: NDArray[np.int64]
    answers: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: Floats, count: int) -> Bins:
        """Of probabilities (N, C)."""
        images, classes = probabilities.shape
        of_rank = np.searchsorted(np.arange(count) * images // count, np.arange(images), side="right") - 1
        flat = np.empty((images, classes), np.int64)
        for c in range(classes):  # one at a time: sorting all takes several copies of them
            flat[np.argsort(probabilities[:, c], kind="stable"), c] = of_rank + count * c
        return cls(count, equal_width(probabilities.max(axis=1), count), flat, probabilities.argmax(axis=1))

    @property
    def size(self) -> int:
        """Of a vector of sums."""
        return self.count + 1 + int(self.flat.shape[1]) * self.count

    def sums(self, values: Floats) -> Floats:
        """Of values (N, C)."""
        images, classes = values.shape
        top1 = np.bincount(self.top1, values[np.arange(images), self.answers], self.count + 1)
        return np.concatenate([top1, np.bincount(self.flat.ravel(), values.ravel(), classes * self.count)])

    def counted_in(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which sums each image counts in (N, 2), if these are the labels (N,); for a wrong top-1 answer one after
        the last.
        """
        of_classes = self.count + 1 + self.flat[np.arange(len(labels)), labels]
        return np.stack([np.where(labels == self.answers, self.top1, self.size), of_classes], axis=1)

    def hits(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sums of the targets, if these are the labels (N,)."""
        return np.bincount(self.counted_in(labels).ravel(), minlength=self.size + 1)[: self.size]

    def hits_of_members(
        self, before: NDArray[np.int64], after: NDArray[np.int64], member: NDArray[np.int64], members: int
    ) -> NDArray[np.int64]:
        """The sums (members, bins), if each image's label is ``after`` from its ``member`` (N,) on, and ``before``
        until then.
        """
        width = self.size + 1
        changed = np.flatnonzero((before != after) & (member < members))
        start = member[changed, None] * width
        first, then = self.counted_in(before), self.counted_in(after)
        hits = np.bincount((start + then[changed]).ravel(), minlength=members * width)
        hits -= np.bincount((start + first[changed]).ravel(), minlength=members * width)
        hits[:width] += np.bincount(first.ravel(), minlength=width)
        return np.asarray(hits.reshape(members, width)[:, : self.size].cumsum(axis=0))

    def error(self, gaps: Floats) -> Floats:
        """sqrt(ECE · ACE) of sums of gaps (..., bins)."""
        images, classes = self.flat.shape
        absolute = np.abs(gaps)
        top1, by_class = absolute[..., : self.count + 1].sum(axis=-1), absolute[..., self.count + 1 :].sum(axis=-1)
        return np.asarray(np.sqrt(top1 * by_class / classes) / images)


def equal_width(confidences: Floats, count: int) -> NDArray[np.int64]:
    """Bins of the top-1 confidences (N,): closed on the left, and one after the last for exactly 1."""
    return np.digitize(confidences, np.linspace(0, 1, count + 1)) - 1
