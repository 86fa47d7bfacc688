"""The bytes of answers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elude.handlers.json_writing import Written, compact, indented

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(), FINITE, min_size=1))
def test_indented_is_what_torchserve_writes_for_a_prediction(content: dict[str, float]) -> None:
    assert indented(content) == json.dumps(content, indent=2).encode()
    assert compact(content) == json.dumps(content).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON), st.lists(JSON), st.text())
def test_what_is_written_before_stands_where_it_belongs(content: dict[str, Any], items: list[Any], name: str) -> None:
    repeated = content | {name: Written(items)}
    assert compact(repeated) == json.dumps(content | {name: items}).encode()
    assert compact({"predictions": [repeated]}) == json.dumps({"predictions": [content | {name: items}]}).encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_not_said(value: float) -> None:
    for write in (indented, compact):
        with pytest.raises(ValueError, match="Out of range float"):
            write({"a": value})
