"""However the server is told to stop, nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _serving import make_bundle

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def _as_of_a_terminal() -> None:
    """SIGINT is ignored by what a script starts in the background, SIGHUP by what nohup starts, these tests too."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
def test_a_stopped_server_leaves_no_folder(number: signal.Signals, workers: int, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "elude", "serve", str(bundle.root), "--port", "0", "--workers", str(workers)],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_as_of_a_terminal,  # noqa: PLW1509 - nothing else runs in this process
    )
    assert process.stdout is not None
    try:
        assert any("ELUDE_URL" in line for line in process.stdout)
        assert list(temporary.glob("elude-*"))
        process.send_signal(number)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert not list(temporary.glob("elude-*"))
