"""Progress that can be read in a log."""

from __future__ import annotations

import pytest

from elude.progress import progress_bar


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    for every, lines in ((0.0, ["passes: 1 of 2,000", "passes: 2 of 2,000"]), (60.0, [])):
        with progress_bar(every) as step:
            step("passes", 1, 2000)
            step("passes", 2, 2000)
        captured = capsys.readouterr()
        assert captured.err.splitlines() == lines
        assert captured.out == ""
