"""Group sub-units into concepts: sets whose activations over the same images agree.

The split is made unit by unit, so several units may each have a part for one thing; ELUDe (arXiv
2605.31304) names this redundancy as a limit. With p_s the largest activation above 0 of sub-unit s
in each image, sub-units are merged by average linkage on 1 - r, r being Pearson's correlation of
p_s and p_t, until the mean correlation between any two groups is below ``AGREEMENT``. Siblings of
one unit may share a concept. A sub-unit that is never above 0, or always the same, is in none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from elude.exporter.images.classes import enough_per_class
from elude.exporter.naming.neighbours import profiles
from elude.handlers.bundle.catalogue_schema import ConceptRow

AGREEMENT = 0.7  # docs/method.md has what other thresholds give
MOST = 12_000  # sub-units that are compared pair by pair: 0.6 GB of distances
SHARE = 0.5  # of the named members that must agree on the concept's name


def group(
    peak: NDArray[np.float32], names: Mapping[int, str | None], classes: Sequence[str | None] = ()
) -> list[ConceptRow]:
    """The concepts of all layers together, the one with the most members first.

    Args:
        peak: float32 (images, sub-units), the largest activation over the tokens of each image.
        names: of sub-units, by index; those without one may be left out.
        classes: of the images, for the purity; empty: none are known.
    """
    scaled = profiles(peak)
    live = np.flatnonzero(scaled.any(axis=1))
    groups = [live[rows] for rows in _agreeing(scaled[live])]
    ordered = [_typical_first(members, scaled) for members in sorted(groups, key=lambda g: (-len(g), g[0]))]
    named = name_concepts([members.tolist() for members, _ in ordered], names)
    return [
        ConceptRow(
            number,
            name,
            float(fits.mean()),
            purity_of(scaled[members].mean(axis=0), classes),
            tuple(int(index) for index in members),
        )
        for number, ((members, fits), name) in enumerate(zip(ordered, named, strict=True))
    ]


def name_concepts(groups: Sequence[Sequence[int]], names: Mapping[int, str | None]) -> list[str | None]:
    """One name per group, each used once: that of at least half of the named members.

    A name that an earlier group has gets a number: ``trouser``, ``trouser 2``.
    """
    used: Counter[str] = Counter()
    result: list[str | None] = []
    for members in groups:
        votes = Counter(name for name in (names.get(index) for index in members) if name)
        name, count = min(votes.items(), key=lambda vote: (-vote[1], vote[0])) if votes else ("", 0)
        if not count or count < SHARE * votes.total():
            result.append(None)
            continue
        used[name] += 1
        result.append(name if used[name] == 1 else f"{name} {used[name]}")
    return result


def _agreeing(scaled: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """Rows of each group."""
    if len(scaled) < 2 or len(scaled) > MOST:
        return [np.array([row]) for row in range(len(scaled))]
    distance = np.clip(1 - scaled @ scaled.T, 0, 2)
    np.fill_diagonal(distance, 0)
    label = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - AGREEMENT, "distance")
    return [np.flatnonzero(label == number) for number in range(1, int(label.max()) + 1)]


def _typical_first(
    members: NDArray[np.int64], scaled: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The members by falling correlation with the group's mean profile, and these correlations."""
    mean = scaled[members].mean(axis=0, dtype=np.float64)
    fits = scaled[members] @ mean / np.linalg.norm(mean)
    order = np.argsort(-fits, kind="stable")
    return members[order], fits[order]


def purity_of(profile: NDArray[np.float32], classes: Sequence[str | None], top: int = 16) -> float | None:
    """Part of the images where the concept is strongest that are of their most frequent class; None without classes
    or with fewer than two images of each.
    """
    known = enough_per_class(classes)
    strongest = [classes[image] for image in np.argsort(-profile, kind="stable")[:top]] if known else []
    votes = Counter(label for label in strongest if label is not None)
    return max(votes.values()) / len(strongest) if votes else None
