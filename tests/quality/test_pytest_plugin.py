"""The plugin turns checks into tests, none can be deselected, and whatever cannot be judged fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from _stores import make

from elude.quality.policies.policy import DEFAULT_POLICY


def run(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    done = subprocess.run(
        [*command, "-c", "/dev/null", *options, str(folder)], capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_checks_become_tests(tmp_path: Path):
    (tmp_path / "tests").mkdir()
    good, bad = make(tmp_path / "good"), make(tmp_path / "bad", accuracy=0.5)
    policy = f"--elude-policy={DEFAULT_POLICY}"
    code, text = run(tmp_path / "tests", f"--elude-bundle={good.root}")
    assert code == 4, text  # the default policy is the embedded model's
    code, text = run(tmp_path / "tests", f"--elude-bundle={good.root}", policy)
    assert code == 0, text
    assert "passed" in text
    code, text = run(tmp_path / "tests", f"--elude-bundle={bad.root}", policy, "-k", "nothing")
    assert code == 1, text
    assert "accuracy 0.5" in text
    code, text = run(tmp_path / "tests", f"--elude-bundle={tmp_path / 'absent'}")
    assert code == 1, text
    assert "candidate missing" in text
    code, text = run(tmp_path / "tests", f"--elude-policy={tmp_path}")
    assert code == 4, text
    code, text = run(tmp_path / "tests", f"--elude-bundle={good.root}", f"--elude-policy={tmp_path / 'absent'}")
    assert code == 4, text
