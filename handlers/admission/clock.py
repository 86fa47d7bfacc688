"""Today (UTC), from one place, so that what judges by it can be tested on any day."""

from __future__ import annotations

from datetime import UTC, date, datetime


def today() -> date:
    """Today (UTC)."""
    return datetime.now(UTC).date()
