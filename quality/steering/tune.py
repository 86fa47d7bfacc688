"""Quality without training: a few sub-units' gains that raise one dimension and lower no other beyond the policy.

Sub-units are tried in the order of the gradient of a smooth stand-in for the dimension, each in the
direction of its sign. Three disjoint sets of images: one to screen single gains, one to choose how
many of the best to combine (none is a choice), and a held-out one for the figure that is reported,
with its interval, beside doing nothing and random edits of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.exporter.progress import StepProgress
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.edits import Edit
from elude.handlers.errors import UsageError
from elude.handlers.requests.steering import identifier_of
from elude.quality.policies.policy import Policy
from elude.quality.steering.gradients import gain_gradients
from elude.quality.steering.presets import steered_subjects
from elude.quality.steering.tune_values import GUARDS, TUNABLE, Answers, Images, answer, gain, load_images, value
from elude.quality.suites.suite import Suite

_CHUNK = 16  # subjects answered together: their made images are shared, their outputs held at once


@dataclass(frozen=True)
class TuneSettings:
    """How far to look.

    Attributes:
        pool: sub-units that are tried, those with the steepest gradient.
        steps: how far each one's gain goes from 1, upwards where the gradient is positive, else
            downwards; −1 from 1 ablates it.
        max_edits: most sub-units of the result.
        images: most images of each of the two tuning sets.
        controls: random edits of the same size on the held-out set.
        resamples: of the intervals.
    """

    pool: int = 32
    steps: tuple[float, ...] = (1.0, 3.0)
    max_edits: int = 8
    images: int = 600
    controls: int = 20
    resamples: int = 500
    seed: int = 0


@dataclass(frozen=True)
class Change:
    """Of one dimension on the held-out images: better is positive, the interval is of 95 %, over pairs of the same
    images.
    """

    plain: float
    steered: float
    gain: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class TuneReport:
    """What was found.

    Attributes:
        edits: for presets.json; empty if doing nothing was best.
        tuning_gain: on the set that the choice was made on, so too good.
        held_out: the dimension that was to be raised, and the guards.
        controls: held-out gains of random edits of the same size; ``beaten_by`` is the part of them
            that did at least as well.
        evaluated: steered models that were measured while searching.
    """

    dimension: str
    edits: tuple[Mapping[str, Any], ...]
    tuning_gain: float
    held_out: Mapping[str, Change]
    controls: tuple[float, ...]
    beaten_by: float | None
    evaluated: int
    settings: TuneSettings

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def tune(
    bundle: Bundle,
    dimension: str,
    tuning: Suite,
    held_out: Suite,
    policy: Policy,
    settings: TuneSettings = TuneSettings(),
    progress: StepProgress | None = None,
) -> TuneReport:
    """Search gains on ``tuning``, report on ``held_out``.

    Raises:
        UsageError: the dimension cannot be tuned, or both suites are the same images.
    """
    if dimension not in TUNABLE:
        raise UsageError(f"{dimension!r} cannot be tuned.", f"Choose one of {', '.join(TUNABLE)}.")
    if tuning.images.sha256() == held_out.images.sha256():
        raise UsageError(
            "The held-out images are the tuning images: the reported gain would be the search's own luck.",
            "Give others.",
        )
    plain = steered_subjects(bundle, {"plain": ()})["plain"]
    folds = _folds(load_images(tuning, plain), settings)
    search = _Search(bundle, dimension, policy, settings, progress)
    slopes = gain_gradients(bundle, plain, folds[0], dimension, seed=settings.seed)
    singles = search.screen(folds[0], candidates(slopes, settings))
    chosen, tuning_gain = search.combine(singles, folds[1])
    final = load_images(held_out, plain)
    answers = search.answers({"plain": (), "chosen": chosen}, final)
    options = {"resamples": settings.resamples, "seed": settings.seed}
    watched = dict.fromkeys((dimension, *GUARDS))
    changes = {}
    for name in watched:
        found, interval = gain(name, answers["chosen"], answers["plain"], **options)
        changes[name] = Change(value(name, answers["plain"]), value(name, answers["chosen"]), found, interval)
    controls = search.controls(chosen, final, value(dimension, answers["plain"])) if chosen else ()
    beaten = float(np.mean([control >= changes[dimension].gain for control in controls])) if controls else None
    layers = bundle.manifest.layers
    edits = tuple(
        {"id": identifier_of(e.index, layers), "action": "scale", "value": e.gain, "patches": 0} for e in chosen
    )
    return TuneReport(dimension, edits, tuning_gain, changes, controls, beaten, search.evaluated, settings)


class _Search:
    """The three steps; ``evaluated`` counts the steered models measured so far."""

    def __init__(
        self, bundle: Bundle, dimension: str, policy: Policy, settings: TuneSettings, progress: StepProgress | None
    ) -> None:
        self.bundle, self.dimension, self.settings, self.progress = bundle, dimension, settings, progress
        self.allowed = {rule.dimension: rule.max_drop or 0.0 for rule in policy.dimensions if not rule.factor}
        self.evaluated = 0

    def answers(self, edits: Mapping[str, Sequence[Edit]], images: Images) -> dict[str, Answers]:
        found: dict[str, Answers] = {}
        names = list(edits)
        for start in range(0, len(names), _CHUNK):
            part = steered_subjects(self.bundle, {name: edits[name] for name in names[start : start + _CHUNK]})
            found |= answer(part, images, self.dimension, seed=self.settings.seed)
            if self.progress is not None:
                self.progress("steered models", min(start + _CHUNK, len(names)), len(names))
        self.evaluated += len(edits)
        return found

    def screen(self, images: Images, tried: Sequence[Edit]) -> list[tuple[float, Edit]]:
        """Gain of each single edit, best first, of those that raise the dimension and lower no guard beyond the
        policy.
        """
        edits = {f"{edit.index}x{edit.gain}": (edit,) for edit in tried}
        answers = self.answers({"plain": (), **edits}, images)
        plain = answers["plain"]
        scored = [(self._score(answers[name], plain), row[0]) for name, row in edits.items()]
        return sorted(
            ((s, e) for s, e in scored if s is not None and s > 0),
            key=lambda pair: (-pair[0], pair[1].index, pair[1].gain),
        )

    def combine(self, singles: Sequence[tuple[float, Edit]], images: Images) -> tuple[tuple[Edit, ...], float]:
        """The best of: nothing, the best single edit, the two best, … on images that did not rank them."""
        distinct: dict[int, Edit] = {}
        for _, edit in singles:
            distinct.setdefault(edit.index, edit)
        best = list(distinct.values())[: self.settings.max_edits]
        prefixes: dict[str, tuple[Edit, ...]] = {str(k): tuple(best[:k]) for k in range(1, len(best) + 1)}
        answers = self.answers({"plain": (), **prefixes}, images)
        scores = {name: self._score(answers[name], answers["plain"]) for name in prefixes}
        winner = max(scores, key=lambda name: -1.0 if scores[name] is None else scores[name] or 0.0, default=None)
        found = None if winner is None else scores[winner]
        return (prefixes[winner], found) if winner is not None and found is not None and found > 0 else ((), 0.0)

    def controls(self, chosen: Sequence[Edit], images: Images, plain: float) -> tuple[float, ...]:
        """Gains of as many random sub-units with the same gains."""
        total = sum(layer.sub_units for layer in self.bundle.manifest.layers)
        rng = np.random.default_rng(self.settings.seed)
        rows = {
            str(n): [
                Edit.scale(int(i), e.gain)
                for i, e in zip(rng.choice(total, len(chosen), replace=False), chosen, strict=True)
            ]
            for n in range(self.settings.controls)
        }
        return tuple(value(self.dimension, found) - plain for found in self.answers(rows, images).values())

    def _score(self, steered: Answers, plain: Answers) -> float | None:
        """How much the dimension rises;

        None where a guard falls by more than the policy allows, or is not measured by it and falls.
        """
        for guard in GUARDS:
            if value(guard, steered) < value(guard, plain) - self.allowed.get(guard, 0.0):
                return None
        return value(self.dimension, steered) - value(self.dimension, plain)


def _folds(images: Images, settings: TuneSettings) -> tuple[Images, Images]:
    order = np.random.default_rng(settings.seed).permutation(len(images.labels))
    half = min(settings.images, len(order) // 2)
    return images.rows(np.sort(order[:half])), images.rows(np.sort(order[half : 2 * half]))


def candidates(slopes: NDArray[np.float64], settings: TuneSettings) -> list[Edit]:
    """The edits to try: of the ``pool`` steepest sub-units, all steps in the direction in which the dimension should
    rise.
    """
    steepest = np.argsort(-np.abs(slopes), kind="stable")[: settings.pool]
    return [
        Edit.scale(int(i), 1.0 + float(np.sign(slopes[i])) * step)
        for i in steepest
        if slopes[i] != 0
        for step in settings.steps
    ]
