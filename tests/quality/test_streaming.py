"""Streaming states of all nine equal the functions on whole arrays to the last bit, whatever the batches and the
order of merging.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elude.handlers.errors import EvaluationError, UsageError
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.accuracy import accuracy
from elude.quality.dimensions.adversarial_robustness import adversarial_robustness
from elude.quality.dimensions.calibration_error import calibration_error
from elude.quality.dimensions.class_balance import class_balance
from elude.quality.dimensions.corruption_robustness import corruption_robustness
from elude.quality.dimensions.object_focus import object_focus
from elude.quality.dimensions.ood_robustness import ood_robustness
from elude.quality.dimensions.params_m import params_m
from elude.quality.dimensions.result import DimensionResult
from elude.quality.dimensions.shape_bias import shape_bias
from elude.quality.dimensions.streaming import STREAMABLE, Streaming

IMAGES = 40
RNG = np.random.default_rng(0)
OUTPUTS, LABELS = RNG.normal(size=(IMAGES, 4)), RNG.integers(4, size=IMAGES)
CLEAN = RNG.random(IMAGES) < 0.8
HITS = [CLEAN & (RNG.random(IMAGES) < 0.7) for _ in range(6)]
CORRUPTED = {("fog", 1): HITS[0], ("fog", 5): HITS[1], ("snow", 1): HITS[2]}
SHIFTED = {"edge": HITS[3], "sketch": HITS[4]}
SHAPES = RNG.integers(4, size=IMAGES)
TEXTURES = (SHAPES + 1) % 4
QUICK = {"resamples": 10}
WHOLE: dict[str, tuple[tuple[Any, ...], dict[str, Any], DimensionResult]] = {
    "accuracy": ((OUTPUTS, LABELS), {}, accuracy(OUTPUTS, LABELS)),
    "adversarial_robustness": ((CLEAN, HITS[0], HITS[1]), {}, adversarial_robustness(CLEAN, HITS[0], HITS[1])),
    "corruption_robustness": ((CLEAN, CORRUPTED), {}, corruption_robustness(CLEAN, CORRUPTED)),
    "ood_robustness": ((CLEAN, SHIFTED), {}, ood_robustness(CLEAN, SHIFTED)),
    "calibration_error": ((OUTPUTS, LABELS), QUICK, calibration_error(OUTPUTS, LABELS, **QUICK)),
    "class_balance": ((OUTPUTS, LABELS), QUICK, class_balance(OUTPUTS, LABELS, **QUICK)),
    "object_focus": ((HITS[0], HITS[1]), {}, object_focus(HITS[0], HITS[1])),
    "shape_bias": ((LABELS, SHAPES, TEXTURES), {}, shape_bias(LABELS, SHAPES, TEXTURES)),
}


def rows(values: tuple[Any, ...], start: int, stop: int) -> list[Any]:
    return [
        {k: v[start:stop] for k, v in value.items()} if isinstance(value, dict) else value[start:stop]
        for value in values
    ]


@pytest.mark.parametrize("dimension", WHOLE)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_batches_in_any_order_of_merging(dimension: str, data: st.DataObject) -> None:
    values, options, whole = WHOLE[dimension]
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, IMAGES - 1), max_size=6))), IMAGES]
    batches = data.draw(st.permutations(list(pairwise(cuts))))
    states = [Streaming(dimension) for _ in range(data.draw(st.integers(1, 3)))]
    for start, stop in batches:
        states[data.draw(st.integers(0, len(states) - 1))].update(*rows(values, start, stop), position=start)
    first, *others = data.draw(st.permutations(states))
    first.merge(others)
    assert len(first) == IMAGES
    assert first.compute(**options) == whole


@pytest.mark.parametrize("dimension", WHOLE)
def test_without_positions_in_order(dimension: str) -> None:
    values, options, whole = WHOLE[dimension]
    state = Streaming(dimension)
    for start in range(0, IMAGES, 7):
        state.update(*rows(values, start, start + 7))
    assert state.compute(**options) == whole


@pytest.mark.parametrize("dimension", WHOLE)
def test_without_positions_in_another_order_only_sums_round(dimension: str) -> None:
    values, options, whole = WHOLE[dimension]
    state = Streaming(dimension)
    for start in (14, 0, 28, 7, 35, 21):
        state.update(*rows(values, start, min(start + 7, IMAGES)))
    assert state.compute(**options).value == pytest.approx(whole.value, abs=1e-12)


def test_sets_of_other_images_come_when_they_come() -> None:
    state, other = Streaming("ood_robustness"), Streaming("ood_robustness")
    state.update(CLEAN, {})
    state.update(CLEAN[:0], {"edge": HITS[0][:9]})
    other.update(CLEAN[:0], {"edge": HITS[0][9:20], "sketch": HITS[1][:3]}, position=1000)
    state.merge([other])
    assert state.compute() == ood_robustness(CLEAN, {"edge": HITS[0][:20], "sketch": HITS[1][:3]})


def test_parameters_are_counted_once() -> None:
    states = [Streaming("params_m"), Streaming("params_m")]
    for state in states:
        state.update(1_500_000)
    states[0].merge(states[1:])
    assert states[0].compute() == params_m(1_500_000)
    states[0].update(7)
    with pytest.raises(EvaluationError, match="1500000"):
        states[0].compute()


def test_all_nine_and_what_is_refused() -> None:
    assert set(STREAMABLE) == set(DIMENSIONS)
    state = Streaming("object_focus")
    with pytest.raises(EvaluationError, match="no images"):
        state.compute()
    with pytest.raises(UsageError, match="same, rand"):
        state.update(np.ones(3, bool))
    with pytest.raises(UsageError, match="one row"):
        state.update(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(UsageError):
        state.merge([Streaming("accuracy")])
    with pytest.raises(UsageError, match="beauty"):
        Streaming("beauty")
    corrupted = Streaming("corruption_robustness")
    with pytest.raises(UsageError, match="clean, corrupted"):
        corrupted.update(CLEAN, CLEAN)
    corrupted.update(CLEAN, CORRUPTED)
    with pytest.raises(UsageError, match="conditions"):
        corrupted.update(CLEAN, {("fog", 1): CLEAN})
