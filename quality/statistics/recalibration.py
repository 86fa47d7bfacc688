"""What a model's probabilities should have been: guesses, from the labels of few images.

Models err in few typical ways: too sure everywhere, too much or too little spread over all classes,
    a top-1 answer less right than stated,
some classes favoured, some regions off. Each is a form of few parameters
(``quality/statistics/recalibration_forms.py``). A few images may not tell which it is: then there
are several guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elude.quality.statistics.intervals import Floats
from elude.quality.statistics.recalibration_forms import Form, even_share, some_shifts, temperature, top_answer

_WINDOW = 20  # how many times as likely as a guess the likeliest may be
_Fit = Callable[[Floats, NDArray[np.int64]], Form]


@dataclass(frozen=True)
class _Guess:
    """Recalibrated probabilities (N, C), and how much more likely they are than those stated: the logarithm."""

    worth: float
    probabilities: Floats


def recalibrations(probabilities: Floats, labels: NDArray[np.int64], flat: NDArray[np.int64]) -> list[Floats]:
    """Guesses what probabilities (N, C) should have been, given that they are off.

    A guess is a set of forms, fitted one after another in the order that gains most. It is worth
    what it gains in log-likelihood, less log(N)/2 for each parameter (Schwarz, Annals of Statistics
    1978). Sets grow by one form that is worth more than nothing at a time, while they are at least
    a twentieth as likely as the likeliest: Occam's window (Madigan & Raftery, JASA 1994).

    Args:
        probabilities: of the model.
        labels: (N,).
        flat: (N, C), the number of each probability's bin, over all classes.

    Returns:
        probabilities (N, C), the likeliest first. If no form is worth anything, those of each
        smooth form: in one of these directions an error would lie, if any. The probabilities
        themselves, if no form changes them.
    """
    classes = np.broadcast_to(np.arange(probabilities.shape[1]), probabilities.shape)
    smooth: list[_Fit] = [temperature, even_share, top_answer]
    fits: list[_Fit] = [*smooth, lambda p, y: some_shifts(p, y, classes), lambda p, y: some_shifts(p, y, flat)]
    price = np.log(len(labels)) / 2
    nothing: frozenset[int] = frozenset()
    found = newest = {nothing: _Guess(0.0, probabilities)}
    while newest:
        larger: dict[frozenset[int], tuple[float, Form]] = {}
        for forms, guess in newest.items():
            for k in set(range(len(fits))) - forms:
                form = fits[k](guess.probabilities, labels)
                worth = guess.worth + form.gain - form.parameters * price
                more = forms | {k}
                if worth > guess.worth and (more not in larger or worth > larger[more][0]):
                    larger[more] = worth, form
        least = max([guess.worth for guess in found.values()] + [worth for worth, _ in larger.values()]) - np.log(
            _WINDOW
        )
        newest = {
            forms: _Guess(worth, form.probabilities()) for forms, (worth, form) in larger.items() if worth >= least
        }
        found = {forms: guess for forms, guess in found.items() if guess.worth >= least} | newest
    found.pop(nothing, None)
    if found:
        return [guess.probabilities for guess in sorted(found.values(), key=lambda guess: -guess.worth)]
    tried = [fit(probabilities, labels) for fit in smooth]
    return [form.probabilities() for form in tried if form.gain > 0] or [probabilities]
