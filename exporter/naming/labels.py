"""Names from labels: a sub-unit is named after the class or attribute that is far more frequent among its strongest
images than among all.

Of M images with n strongest ones and a label on K of all, x of the strongest carry it: under no
    relation x is hypergeometric, and its
upper tail P(X >= x) is the p-value (Fisher's exact test, one-sided). The p-values of all sub-units
and labels are judged together by the method of Benjamini and Hochberg (J. R. Statist. Soc. B 57,
1995), so that of all names given at most the part ``fdr`` is expected to be chance. Significance
alone is not enough for a name: with many images a label on a third of the strongest is beyond doubt
no chance, yet the name would mislead. So at least the part ``purity`` of the strongest images must
carry it; that part is the name's score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom

from elude.exporter.images.classes import with_coarser
from elude.exporter.naming.evidence import Name
from elude.handlers.errors import UsageError

METHOD = "labels"


@dataclass(frozen=True)
class LabelSettings:
    """When a label becomes a name.

    Attributes:
        top: strongest images looked at; those where the sub-unit is not above 0 never count.
        fdr: false discovery rate, the part of all names that may be chance.
        purity: part of the strongest images that must carry the label.
        fewest: strongest images below which a sub-unit stays unnamed.
    """

    top: int = 50
    fdr: float = 0.01
    purity: float = 0.5
    fewest: int = 5

    def __post_init__(self) -> None:
        if self.top < 1 or self.fewest < 1:
            raise UsageError(f"top is {self.top} and fewest is {self.fewest}.", "Give at least 1 of each.")
        if not 0 < self.fdr < 1 or not 0 <= self.purity <= 1:
            raise UsageError(
                f"fdr is {self.fdr} and purity is {self.purity}.", "Give 0 < fdr < 1 and a purity from 0 to 1."
            )


@dataclass(frozen=True)
class Labels:
    """Which image carries which label: ``carries`` bool (images, labels). An image may carry several, or none."""

    names: tuple[str, ...]
    carries: NDArray[np.bool_]

    @classmethod
    def of_classes(
        cls, classes: Sequence[str | None], superclasses: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> Labels:
        """One class per image, as ``elude.exporter.images`` gives them, with the coarser classes above it: those of
        ``superclasses``, and of synsets of ImageNet, which are put in words, the known ones.
        """
        return cls.of_sets(with_coarser(classes, superclasses))

    @classmethod
    def of_sets(cls, sets: Sequence[Sequence[str]]) -> Labels:
        """Any number of labels an image, finer ones first: they are preferred where several fit equally well."""
        depth: dict[str, int] = {}
        for labels in sets:
            for place, name in enumerate(labels):
                depth[name] = max(place, depth.get(name, 0))
        names = tuple(sorted(depth, key=lambda name: (depth[name], name)))
        number = {name: i for i, name in enumerate(names)}
        carries = np.zeros((len(sets), len(names)), bool)
        for image, labels in enumerate(sets):
            carries[image, [number[name] for name in labels]] = True
        return cls(names, carries)


def tail(
    carrying: NDArray[np.int64], drawn: NDArray[np.int64], among: NDArray[np.int64], images: int
) -> NDArray[np.float64]:
    """P(X >= carrying) when ``drawn`` of ``images`` are drawn and ``among`` of them carry the label; arrays
    broadcast.
    """
    found: NDArray[np.float64] = hypergeom.sf(carrying - 1, images, among, drawn)
    return found


def names_from_labels(
    peak: NDArray[np.float32], labels: Labels, settings: LabelSettings = LabelSettings(), first: int = 0
) -> list[Name]:
    """The sub-units that a label fits.

    Args:
        peak: float32 (images, sub-units), largest activation in each image.
        labels: of the same images.
        settings: see ``LabelSettings``.
        first: index over all layers of the first sub-unit.

    Raises:
        UsageError: the labels are of another number of images.
    """
    images, count = peak.shape
    if len(labels.carries) != images:
        raise UsageError(
            f"There are labels of {len(labels.carries)} images for activations of {images}.", "Use the same images."
        )
    if not labels.names or not count:
        return []
    order = np.argsort(-peak, axis=0, kind="stable")[: settings.top]
    above = np.take_along_axis(peak, order, axis=0) > 0
    drawn = above.sum(axis=0)
    carrying = (labels.carries[order] & above[:, :, None]).sum(axis=0)  # (sub-units, labels)
    among = labels.carries.sum(axis=0)
    p = tail(carrying, drawn[:, None], among[None], images)
    live = drawn >= settings.fewest
    q = np.ones_like(p)
    if live.any():
        q[live] = false_discovery_control(p[live].ravel(), method="bh").reshape(-1, len(labels.names))
    part = carrying / np.maximum(drawn, 1)[:, None]
    found = []
    for row in np.flatnonzero(live):
        fits = np.flatnonzero((q[row] <= settings.fdr) & (part[row] >= settings.purity))
        if len(fits):
            best = int(fits[np.lexsort((-part[row, fits], p[row, fits]))[0]])
            evidence = {
                "carrying": int(carrying[row, best]),
                "strongest": int(drawn[row]),
                "expected": float(among[best] / images),
                "p": float(p[row, best]),
                "q": float(q[row, best]),
            }
            found.append(Name(first + int(row), labels.names[best], METHOD, float(part[row, best]), evidence))
    return found


def settings_json(settings: LabelSettings, images: int) -> Mapping[str, object]:
    """For ``names.json``."""
    return {"method": METHOD, "images": images, **asdict(settings)}
