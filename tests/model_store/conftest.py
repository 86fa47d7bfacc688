"""The day stands still: a run of the tests that goes on past midnight judges by one day."""

from __future__ import annotations

import pytest
from _stores import TODAY

from elude.handlers.admission import clock


@pytest.fixture(autouse=True)
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)
