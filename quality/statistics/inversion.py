"""Confidence intervals of statistics that noise biases, such as a standard deviation or a sum of absolute gaps, by
inverting a test.

Such a statistic is never small on few images, however small the truth, so that neither the
bootstrap nor "estimate ± error" covers it. Here the truth is moved along a one-parameter family of
models, from "no effect" to more than was seen. For each member the statistic is simulated on as
many images as were measured; the interval holds the members under which what was measured is not
unusual.

Unusual means: the corrected estimate lies further from the truth than it does in 95 % of the
    simulations. The corrected estimate is
the member that would measure, on average, what was measured. Unlike two equal tails this is never
empty, always holds the corrected estimate, and is not conservative at "no effect". (Test inversion:
Casella & Berger, Statistical Inference, section 9.2; one ordering for both one- and two-sided
intervals, as in Feldman & Cousins, Phys. Rev. D 57, 1998.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elude.quality.statistics.intervals import LEVEL, Floats

_FINE = 2000
_BETWEEN = 10


@dataclass(frozen=True)
class Family:
    """A one-parameter family of models and what they would measure.

    Attributes:
        truths: (T,) the true value of each member, ascending from "no effect".
        simulated: (T, B) the statistic under each.
    """

    truths: Floats
    simulated: Floats

    def corrected(self, measured: Floats | float) -> Floats:
        """The truth whose mean measurement is ``measured``: what is left after the bias of noise is taken out."""
        means = np.maximum.accumulate(self.simulated.mean(axis=1)) + np.arange(len(self.truths)) * 1e-12
        return np.asarray(np.interp(measured, means, self.truths))

    def finer(self) -> Family:
        """With members in between, of which each quantile of the statistic lies between those of their neighbours.

        Near "no effect" many estimates are equal, and how far they reach has a kink in the truth:
        an interpolation of the reach over it would be too short. Measurements themselves change
        smoothly. (Draws are sorted, so no longer paired across members.)
        """
        places = np.linspace(0, len(self.truths) - 1, (len(self.truths) - 1) * _BETWEEN + 1)
        lower = np.minimum(places.astype(int), len(self.truths) - 2)
        weight = (places - lower)[:, None]
        quantiles = np.sort(self.simulated, axis=1)
        return Family(
            np.interp(places, np.arange(len(self.truths)), self.truths),
            (1 - weight) * quantiles[lower] + weight * quantiles[lower + 1],
        )


def invert(
    estimate: float, truths: Floats, estimates: Floats, *, level: float = LEVEL, low: float | None = None
) -> tuple[float, float]:
    """The truths under which ``estimate`` is not unusual.

    Args:
        estimate: the corrected estimate of the data.
        truths: (T,) ascending.
        estimates: (T, B) the corrected estimates of simulated data, which may hold the noise of further factors.
        level: of the interval.
        low: if given, truths down to here are tried too, with the reach of the lowest member: where
            a further factor can lie below it.

    Returns:
        lowest and highest such truth.
    """
    # of B draws and one more of the same kind, the last exceeds this quantile with probability 1 - level
    reach = np.quantile(np.abs(estimates - truths[:, None]), level, axis=1, method="weibull")
    fine = np.linspace(truths[0] if low is None else low, truths[-1], _FINE)
    fits = fine[np.abs(fine - estimate) <= np.interp(fine, truths, reach)]
    if not len(fits):
        return estimate, estimate
    return min(float(fits[0]), estimate), max(float(fits[-1]), estimate)
