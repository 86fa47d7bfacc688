"""The documentation site builds without a warning: no dead link, no page out of the navigation, no API that is not
there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def build(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=config.parent, timeout=240)


def test_the_site_builds(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "elude").symlink_to(ROOT / "elude")
    done = build(tmp_path / "mkdocs.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "build" / "site" / "api.html").read_text(encoding="utf-8")
    assert "elude.model_store.store.Store" in page
    elsewhere = re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"', page)
    assert not elsewhere, "a page fetches nothing from elsewhere"


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nowhere](nowhere.md)\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\ndocs_dir: docs\n")
    done = build(tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "page does not exist" in done.stdout + done.stderr
