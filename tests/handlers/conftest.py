"""The service on the model that is worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from _worked import WorkedSession, make_bundle

from elude.handlers.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(make_bundle(tmp_path / "b"), WorkedSession())
