"""Ways to recalibrate a model's probabilities by the labels of some images, each with a few parameters and fitted by
likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit

from elude.quality.statistics.intervals import Floats, softmax

_LEAST_PROBABILITY = 1e-12
_SHARPNESS = (0.02, 50.0)
_STEPS = 30
_CLOSE = 1e-4
_LEAST_STEP = 0.02
_TURNS = 5
_WHOLE = 1 - 1e-3  # of the way to where a probability would be 0, or all of them equal
_FARTHEST = 50.0  # offset and slope of log odds: where all answers are right there is no likeliest
_TELLING = 4.0  # variance of a group's count, from which on it is about normal
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
_SIZES = np.geomspace(0.1, 2.0, 13)  # in logits


@dataclass(frozen=True)
class Form:
    """One way to recalibrate, fitted.

    Attributes:
        gain: of the labels' log-likelihood over that of the probabilities as they were.
        parameters: how many were fitted.
        probabilities: makes the new ones (N, C); there may be many classes.
    """

    gain: float
    parameters: int
    probabilities: Callable[[], Floats]


def temperature(probabilities: Floats, labels: NDArray[np.int64]) -> Form:
    """Probabilities to one power (Guo et al., ICML 2017)."""
    logs = _logs(probabilities)
    sharpness, gain = _likeliest(np.zeros((1, 1)), logs, labels, _SHARPNESS)
    gain -= float(_of_labels(logs, labels).sum())
    return Form(gain, 1, lambda: softmax(logs * sharpness))


def even_share(probabilities: Floats, labels: NDArray[np.int64]) -> Form:
    """A share of the probability spread evenly over the classes, or as much taken back (label smoothing, undone)."""
    classes = probabilities.shape[1]
    seen = np.maximum(_of_labels(probabilities, labels), _LEAST_PROBABILITY)
    least = classes * float(probabilities.min())
    if least >= _WHOLE:
        return Form(0.0, 1, lambda: probabilities)
    ends = (-_WHOLE * least / (1 - least), _WHOLE)
    to_even = 1 / classes - seen

    def slope(share: float) -> float:  # of the log-likelihood, which is concave
        return float((to_even / (seen + share * to_even)).sum())

    share = ends[0] if slope(ends[0]) <= 0 else ends[1] if slope(ends[1]) >= 0 else float(brentq(slope, *ends))
    gain = float(np.log1p(share * to_even / seen).sum())
    return Form(gain, 1, lambda: np.maximum(probabilities + share * (1 / classes - probabilities), 0.0))


def top_answer(probabilities: Floats, labels: NDArray[np.int64]) -> Form:
    """The log odds of the top-1 answer by a line (Platt scaling, 1999), the other classes in their proportions."""
    images, classes = probabilities.shape
    rows, answers = np.arange(images), probabilities.argmax(axis=1)
    top = probabilities[rows, answers]
    odds = _logs(top) - np.log(np.maximum(1 - top, (classes - 1) * _LEAST_PROBABILITY))
    signs = np.where(answers == labels, 1.0, -1.0)

    def loss(line: Floats) -> tuple[float, Floats]:
        margins = signs * (line[0] + line[1] * odds)
        slopes = -signs * expit(-margins) / images
        return float(np.logaddexp(0, -margins).mean()), np.array([slopes.sum(), slopes @ odds])

    start = np.array([0.0, 1.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-_FARTHEST, _FARTHEST)] * 2)

    def apply() -> Floats:
        logs = _logs(probabilities)
        logs[rows, answers] += found.x[0] + (found.x[1] - 1) * odds
        return softmax(logs)

    return Form(images * (loss(start)[0] - float(found.fun)), 2, apply)


def some_shifts(probabilities: Floats, labels: NDArray[np.int64], groups: NDArray[np.int64]) -> Form:
    """A shift of the logits in some of the ``groups``: (N, C), the number of the group of each probability.

    A group's excess of labels g has variance v = Σ p(1 − p) if calibrated, and estimates its shift
    by g/v with variance 1/v. A share of the groups is taken to be shifted, by normal amounts around
    0; the likeliest share and size are sought on a grid, and each group shifted by its posterior
    mean (a spike and a slab: George & McCulloch, JASA 1993, by empirical Bayes). Groups of few
    expected labels stay.

    As shifts move one another's groups, this takes several turns. Together they go no further than
    is likeliest, and gain no more than they reach.
    """
    count, numbers = int(groups.max()) + 1, groups.ravel()
    logs, seen = _logs(probabilities), np.bincount(_of_labels(groups, labels), minlength=count)
    shifts, evidence, shifted = np.zeros(count), 0.0, probabilities
    for turn in range(_TURNS):
        variance = np.bincount(numbers, (shifted * (1 - shifted)).ravel(), count)
        excess = seen - np.bincount(numbers, shifted.ravel(), count) + variance * shifts
        telling = variance >= _TELLING
        found, posterior = _posterior(
            np.asarray(variance[telling], np.float64), np.asarray(excess[telling], np.float64)
        )
        evidence = found if turn == 0 else evidence
        if evidence == 0:
            return Form(0.0, 2, lambda: probabilities)
        shifts[telling] = (shifts[telling] + posterior) / (2 if turn else 1)
        shifted = softmax(logs + shifts[groups])
    change = shifts[groups]
    step, gain = _likeliest(logs, change, labels, (_LEAST_STEP, 1.0))
    gain -= float(_of_labels(logs, labels).sum())
    return Form(min(evidence, gain), 2, lambda: softmax(logs + step * change))


def _posterior(variance: Floats, excess: Floats) -> tuple[float, Floats]:
    """Log evidence of shifts against none, for the likeliest share and size, and the posterior mean of each group's
    shift.
    """
    best, shifts = 0.0, np.zeros_like(variance)
    for size in _SIZES:
        ratio = 1 + size**2 * variance
        odds = (excess**2 / variance * (1 - 1 / ratio) - np.log(ratio)) / 2  # of being shifted, the logarithm
        for share in _SHARES:
            off = np.log(share) + odds
            either = np.logaddexp(off, np.log1p(-share)) if share < 1 else off
            if (evidence := float(either.sum())) > best:
                best, shifts = evidence, np.exp(off - either) * size**2 * excess / ratio
    return best, shifts


def _likeliest(
    base: Floats, change: Floats, labels: NDArray[np.int64], ends: tuple[float, float]
) -> tuple[float, float]:
    """The multiple of ``change`` (N, C) to add to the logits ``base``, and the log-likelihood: Newton's method from
    1, on a concave one.
    """
    seen = float(_of_labels(change, labels).sum())
    multiple = 1.0
    for _ in range(_STEPS):
        probabilities = softmax(base + multiple * change)
        means = np.einsum("nc,nc->n", probabilities, change)
        variance = float(np.einsum("nc,nc,nc->", probabilities, change, change) - means @ means)
        if variance <= _LEAST_PROBABILITY:
            break
        # no step more than doubles or halves it: far from the likeliest, Newton's would overshoot
        moved = float(np.clip(multiple + (seen - means.sum()) / variance, multiple / 2, multiple * 2))
        moved = float(np.clip(moved, *ends))
        if abs(moved - multiple) <= _CLOSE * multiple:
            break
        multiple = moved
    return multiple, float(_logs(_of_labels(probabilities, labels)).sum())


def _logs(probabilities: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(probabilities, _LEAST_PROBABILITY)))


def _of_labels(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:
    """Of values (N, C) the one of each label (N,)."""
    return np.asarray(values[np.arange(len(labels)), labels])
