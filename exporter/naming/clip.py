"""Names from a vocabulary, by an image-text encoder: CLIP-Dissect (Oikarinen and Weng, arXiv 2204.10965), with its
similarity SoftWPMI.

With P[x, m] the cosine of image x and word m, p(t_m | x) = softmax_m(a P[x, m]) and B_k the
strongest images of sub-unit k,

    p(t_m | B_k) = prod over x of [1 + p(x in B_k) (p(t_m | x) - 1)],
    SoftWPMI(t_m, k) = log p(t_m | B_k) - lambda log mean over k of p(t_m | B_k).

p(x in B_k) falls from 0.998 for the strongest image towards 0.97 for the last one and is 0 for all
others, a = 10 and lambda = 1: the published implementation's values. The paper names every unit
with its best word; here a name is kept only if its score is beyond that of random sets of as many
images: p is the part of random sets whose best word scores as high, and all sub-units are judged
together (Benjamini and Hochberg).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from scipy.stats import false_discovery_control

from elude.exporter.naming.evidence import Name
from elude.handlers.errors import UsageError

METHOD = "clip"
_SMALLEST = 1e-7  # keeps the logarithm finite


@dataclass(frozen=True)
class ClipSettings:
    """When a word becomes a name.

    Attributes:
        top: strongest images of each sub-unit.
        sharpness: a of the module's docstring.
        commonness: lambda, how much words that fit everything lose.
        fdr: false discovery rate.
        random_sets: random sets of images that the scores are compared with; the smallest p-value is
            1 / (1 + random_sets).
        seed: of the random sets.
    """

    top: int = 100
    sharpness: float = 10.0
    commonness: float = 1.0
    fdr: float = 0.05
    random_sets: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.top < 2 or self.random_sets < 20 or not 0 < self.fdr < 1:
            raise UsageError(
                f"top is {self.top}, random_sets is {self.random_sets}, fdr is {self.fdr}.",
                "Give at least 2 and 20, and 0 < fdr < 1.",
            )


def log_p_given_set(p: NDArray[np.float64], sets: NDArray[np.int64]) -> NDArray[np.float64]:
    """log p(t_m | B_k), float64 (sets, words), from p(t_m | x) (images, words) and sets of images (sets, size),
    strongest first.
    """
    size = sets.shape[1]
    member = 0.998 - np.arange(size) / size * (0.998 - 0.97)
    found = np.empty((len(sets), p.shape[1]))
    for row, images in enumerate(sets):
        found[row] = np.log(1 + member[:, None] * (p[images] - 1) + _SMALLEST).sum(axis=0)
    return found


def log_p(given: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p(t_m), float64 (words,): the mean of p(t_m | B_k) over the sub-units."""
    mean: NDArray[np.float64] = logsumexp(given, axis=0) - np.log(len(given))
    return mean


def names_from_vocabulary(
    peak: NDArray[np.float32],
    similar: NDArray[np.float64],
    words: Sequence[str],
    settings: ClipSettings = ClipSettings(),
    first: int = 0,
) -> list[Name]:
    """The sub-units that a word fits better than it fits random images.

    Args:
        peak: float32 (images, sub-units), largest activation in each image.
        similar: float64 (images, words), cosines of images and words.
        words: the vocabulary.
        settings: see ``ClipSettings``.
        first: index over all layers of the first sub-unit.

    Raises:
        UsageError: shapes do not fit, or there are fewer than two words or images.
    """
    images = len(peak)
    if similar.shape != (images, len(words)) or len(words) < 2 or images < 2:
        raise UsageError(
            f"Similarities {similar.shape} do not fit {images} images and {len(words)} words.",
            "Give at least two of each.",
        )
    top = min(settings.top, images // 2 or 1)
    order = np.argsort(-peak, axis=0, kind="stable")[:top]
    live = np.flatnonzero(
        (np.take_along_axis(peak, order, axis=0) > 0).all(axis=0)
    )  # fewer images would make a score of another scale
    if not len(live):
        return []
    p = softmax(settings.sharpness * similar, axis=1)
    given = log_p_given_set(p, order[:, live].T)
    common = settings.commonness * log_p(given)
    score = given - common
    rng = np.random.default_rng(settings.seed)
    sets = np.stack([rng.choice(images, top, replace=False) for _ in range(settings.random_sets)])
    chance = np.sort((log_p_given_set(p, sets) - common).max(axis=1))
    best = score.argmax(axis=1)
    highest = score.max(axis=1)
    beaten = np.searchsorted(chance, highest, side="left")
    significance = (1 + len(chance) - beaten) / (1 + len(chance))
    q = false_discovery_control(significance, method="bh")
    found = []
    for row in np.flatnonzero(q <= settings.fdr):
        second = int(np.argsort(-score[row], kind="stable")[1])
        evidence = {
            "p": float(significance[row]),
            "q": float(q[row]),
            "second": words[second],
            "second_score": float(score[row, second]),
        }
        found.append(Name(first + int(live[row]), words[best[row]], METHOD, float(highest[row]), evidence))
    return found


def settings_json(settings: ClipSettings, images: int, words: int) -> dict[str, object]:
    """For ``names.json``."""
    return {"method": METHOD, "images": images, "words": words, **asdict(settings)}
