"""How far the accuracy of one class dropped between two models that answered the same images.

Of n images of a class, k are newly wrong (right before, wrong now) and g newly right. Then

    drop = accuracy before - accuracy now = (k - g) / n,

and the drops of all classes, weighted by n, are the drop of the whole accuracy. With probabilities p and q of a newly
wrong and a newly right image the true drop is p - q, and

    [L(k) - U(g), U(k) - L(g)]

holds it with 95 % or more, however few the images: L and U are the ends of Clopper and Pearson's exact 97.5 % intervals
(Biometrika 1934), and each end of the difference misses with at most 1.25 % + 1.25 % (Bonferroni). The limits that take
newly wrong and newly right images together (Tango 1998) are shorter and do not hold their level with five images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import betaincinv

from elude.quality.statistics.intervals import LEVEL

_TAIL = (1 - LEVEL) / 4  # of each of the four limits


@dataclass(frozen=True)
class ClassDrop:
    """The answers to the images of one class: ``newly_wrong`` and ``newly_right`` of ``images``."""

    name: str
    images: int
    newly_wrong: int
    newly_right: int

    @property
    def drop(self) -> float:
        """Accuracy before minus accuracy now, in [-1, 1]."""
        return (self.newly_wrong - self.newly_right) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the true drop, of 95 % or more."""
        wrong, right = (share_limits(count, self.images) for count in (self.newly_wrong, self.newly_right))
        return wrong[0] - right[1], wrong[1] - right[0]


def share_limits(count: int, images: int) -> tuple[float, float]:
    """Clopper and Pearson's exact 97.5 % interval of a share, ``count`` of ``images``."""
    low = 0.0 if count == 0 else float(betaincinv(count, images - count + 1, _TAIL))
    high = 1.0 if count == images else float(betaincinv(count + 1, images - count, 1 - _TAIL))
    return low, high


def class_drops(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[ClassDrop, ...]:
    """The drop of each class.

    Args:
        before: class to its images in order, ``1`` for a right answer and ``0`` for a wrong one.
        now: the same of the other model, on the same images.
    """
    return tuple(_drop(name, answers, now[name]) for name, answers in before.items())


def images_needed(max_drop: float) -> int:
    """The fewest images of a class, all answered as before, whose upper limit is ``max_drop`` or less."""
    return math.ceil(math.log(_TAIL) / math.log1p(-max_drop))


def _drop(name: str, before: str, now: str) -> ClassDrop:
    pairs = list(zip(before, now, strict=True))
    return ClassDrop(name, len(pairs), pairs.count(("1", "0")), pairs.count(("0", "1")))
