"""Torchvision imports beside this torch, repaired or not, and another failure of it is not hidden."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_transforms_work_and_the_repair_is_made_only_where_needed() -> None:
    code = """
import sys, importlib
try:
    importlib.import_module("torchvision")
    native = True
except RuntimeError:
    native = False
for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
    if not native:
        del sys.modules[name]
from elude.exporter.models import torchvision_compat
assert (torchvision_compat.DECLARED is None) == native
import timm, torchvision, torchvision.transforms as transforms
from PIL import Image
assert transforms.ToTensor()(Image.new("RGB", (2, 3))).shape == (3, 3, 2)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_another_failure_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('something else')")
    done = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import elude.exporter.models.torchvision_compat")
    assert done.returncode != 0
    assert "something else" in done.stderr
