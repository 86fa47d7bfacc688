"""Bins of the calibration error, over which sums of many simulated labels are taken at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quality.statistics.statistics import Floats


@dataclass(frozen=True)
class Bins:
    """Which bins the probabilities of (N, C) outputs fall into.

    Sums over bins are vectors: first those of the top-1 confidences (count + 1,), then those of each class (C * count,).

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
    def of(cls, top1: NDArray[np.int64], order: NDArray[np.int64], answers: NDArray[np.int64], count: int) -> Bins:
        """From the order (N, C) of each class by ascending probability."""
        images, classes = order.shape
        of_rank = np.searchsorted(np.arange(count) * images // count, np.arange(images), side="right") - 1
        flat = np.empty((images, classes), np.int64)
        np.put_along_axis(flat, order, of_rank[:, None] + count * np.arange(classes), axis=0)
        return cls(count, top1, flat, answers)

    def sums(self, values: Floats) -> Floats:
        """Of values (N, C)."""
        images, classes = values.shape
        top1 = np.bincount(self.top1, values[np.arange(images), self.answers], self.count + 1)
        return np.concatenate([top1, np.bincount(self.flat.ravel(), values.ravel(), classes * self.count)])

    def places(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which sums each image counts in (N, 2), if these are the labels (N,); for a wrong top-1 answer one after the last."""
        images, classes = self.flat.shape
        of_classes = self.count + 1 + self.flat[np.arange(images), labels]
        return np.stack([np.where(labels == self.answers, self.top1, self.count + 1 + classes * self.count), of_classes], axis=1)

    def hits(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sums of the targets, if these are the labels (N,)."""
        total = self.count + 1 + self.flat.shape[1] * self.count
        return np.bincount(self.places(labels).ravel(), minlength=total + 1)[:total]

    def hits_of_members(
        self, before: NDArray[np.int64], after: NDArray[np.int64], member: NDArray[np.int64], members: int
    ) -> NDArray[np.int64]:
        """The sums (members, bins), if each image's label is ``after`` from its ``member`` (N,) on, and ``before`` until then."""
        total = self.count + 1 + self.flat.shape[1] * self.count
        changed = np.flatnonzero((before != after) & (member < members))
        start = member[changed, None] * (total + 1)
        size = members * (total + 1)
        more = np.bincount((start + self.places(after)[changed]).ravel(), minlength=size)
        less = np.bincount((start + self.places(before)[changed]).ravel(), minlength=size)
        return np.asarray(self.hits(before) + (more - less).reshape(members, total + 1)[:, :total].cumsum(axis=0))

    def error(self, gaps: Floats) -> Floats:
        """sqrt(ECE · ACE) of sums of gaps (..., bins)."""
        images, classes = self.flat.shape
        absolute = np.abs(gaps)
        top1, by_class = absolute[..., : self.count + 1].sum(axis=-1), absolute[..., self.count + 1 :].sum(axis=-1)
        return np.asarray(np.sqrt(top1 * by_class / classes) / images)
