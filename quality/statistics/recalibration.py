"""What a model's probabilities should have been: a best guess, from the labels of few images.

Models err in few typical ways: too sure everywhere, too much or too little spread over all classes, a top-1 answer less right than stated,
some classes favoured, some regions off. Each is a form of few parameters (``quality/statistics/recalibration_forms.py``); those are taken
that the labels speak for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quality.statistics.recalibration_forms import Form, even_share, some_shifts, temperature, top_answer
from quality.statistics.statistics import Floats

_Fit = Callable[[Floats, NDArray[np.int64]], Form]


def recalibrated(probabilities: Floats, labels: NDArray[np.int64], flat: NDArray[np.int64]) -> Floats:
    """(N, C) probabilities, recalibrated by ``labels`` (N,); ``flat`` (N, C) is the number of each one's bin, over all classes.

    One form after another, always the one that gains most, while it gains more than its parameters by Schwarz's criterion (Annals of
    Statistics, 1978): log(N)/2 each. If none does, the best of the smooth forms: it says in which direction an error would lie, if any.
    """
    classes = np.broadcast_to(np.arange(probabilities.shape[1]), probabilities.shape)
    smooth: list[_Fit] = [temperature, even_share, top_answer]
    left: list[_Fit] = [*smooth, lambda p, y: some_shifts(p, y, classes), lambda p, y: some_shifts(p, y, flat)]
    price = np.log(len(labels)) / 2
    best = probabilities
    while left:
        forms = [fit(best, labels) for fit in left]
        worth = [form.gain - form.parameters * price for form in forms]
        chosen = int(np.argmax(worth))
        if worth[chosen] <= 0:
            return forms[int(np.argmax(worth[: len(smooth)]))].probabilities() if best is probabilities else best
        best = forms[chosen].probabilities()
        del left[chosen]
    return best
