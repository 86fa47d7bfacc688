"""What the tests in a browser share: where Chromium is, how it is started, and axe-core with what it finds."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
AXE = "axe-core@4.14.1"


def chromium() -> str | None:
    """The browser's program, None where there is none."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


NEEDS_CHROMIUM = pytest.mark.skipif(chromium() is None, reason="there is no Chromium: apt-get install chromium")


@contextmanager
def browsing() -> Iterator[Any]:
    """A headless Chromium of Playwright until the block ends."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield opened
        opened.close()


def axe_source(folder: Path) -> str:
    """The script of axe-core, fetched by npm into ``folder``; skips the test where npm cannot."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    packed = subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if packed.returncode:
        pytest.skip(f"npm cannot get {AXE}: {packed.stderr.strip().splitlines()[-1:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as tar:
        source = tar.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()


def violations(page: Any, axe: str) -> list[str]:
    """What axe-core finds, of any impact: rule, impact, and where."""
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']} ({rule['impact']}): {[node['target'] for node in rule['nodes']][:3]}" for rule in found]
