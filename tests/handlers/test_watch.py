"""The watch over an archive's files ends the process between two batches at the first damage, and not before."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from elude.handlers.admission.watch import Watch
from elude.handlers.errors import GateError


def check(folder: Path) -> None:
    if (folder / "a").read_text() != "whole":
        raise RuntimeError("The archive is damaged: a was changed.")


def test_damage_ends_the_process_after_the_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("whole")
    ended, busy = threading.Event(), threading.Lock()
    watch = Watch(check, tmp_path, 0.01, busy, ended.set)
    assert not ended.wait(0.1)
    with busy:
        (tmp_path / "a").write_text("other")
        assert not ended.wait(0.1)
    assert ended.wait(5)
    watch.stop()
    assert "a was changed" in capsys.readouterr().out


def test_a_file_that_is_gone_is_damage(tmp_path: Path) -> None:
    ended = threading.Event()
    watch = Watch(check, tmp_path, 0.01, threading.Lock(), ended.set)
    assert ended.wait(5)
    watch.stop()


def test_a_verdict_that_ends_ends_the_process_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ended(folder: Path) -> None:
        raise GateError("What this model may be served by ended.")

    done = threading.Event()
    watch = Watch(ended, tmp_path, 0.01, threading.Lock(), done.set)
    assert done.wait(5)
    watch.stop()
    assert "ended. This worker ends." in capsys.readouterr().out
