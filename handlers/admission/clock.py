"""The present day, asked of one place, so that whoever judges by it can be tried on any day."""

from __future__ import annotations

from datetime import UTC, date, datetime


def today() -> date:
    """The present day, UTC."""
    return datetime.now(UTC).date()
