"""No worse value ever turns a fail into a pass, and junk never passes."""

from __future__ import annotations

import copy
from typing import Any

from _gate import D, entry, evidence, quality, run
from hypothesis import given
from hypothesis import strategies as st

finite = st.floats(-2, 2, allow_nan=False)


def around(value: float, half: float) -> list[float]:
    """An interval in the measure's range; one that leaves it is refused, however good the value is."""
    return [max(0.0, value - half), min(1.0, value + half)] if 0 <= value <= 1 else [value - half, value + half]


@given(value=finite, worse_by=st.floats(0, 2), half=st.floats(0, 0.5), wider=st.floats(0, 0.5))
def test_a_worse_accuracy_never_turns_fail_into_pass(value: float, worse_by: float, half: float, wider: float):
    value = min(value, 1.0)
    better, worse = quality(), quality()
    better[D]["accuracy"] = entry(value, around(value, half))
    low = value - worse_by
    worse[D]["accuracy"] = entry(low, around(low, half + wider))
    assert run(evidence(quality=better)).passed or not run(evidence(quality=worse)).passed


@given(value=st.floats(0, 1), worse_by=st.floats(0, 2))  # below 0 there is no such error: it is refused
def test_a_worse_calibration_never_turns_fail_into_pass(value: float, worse_by: float):
    better, worse = quality(), quality()
    better[D]["calibration_error"]["value"] = value
    worse[D]["calibration_error"]["value"] = value + worse_by
    assert run(evidence(quality=better)).passed or not run(evidence(quality=worse)).passed


junk = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3), lambda x: st.lists(x, max_size=2))


@given(section=st.sampled_from(sorted(quality())), value=junk)
def test_junk_in_a_section_never_passes_and_never_raises(section: str, value: Any):
    document = copy.deepcopy(quality())
    document[section] = value
    assert not run(evidence(quality=document)).passed or value == document[section] == quality()[section]


@given(dimension=st.sampled_from(["accuracy", "calibration_error", "params_m"]), value=junk)
def test_junk_as_a_dimension_never_passes(dimension: str, value: Any):
    document = quality()
    document[D][dimension] = value
    assert not run(evidence(quality=document)).passed
