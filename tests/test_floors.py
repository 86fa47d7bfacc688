"""The rooms are floors: a room imports only what lies below it, and the ground floor and the command line load no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("handlers", "exporter", "quality", "model_store", "elude")  # ground floor first
TORCH_SIDE = {"torch", "torchvision", "timm", "onnx", "onnxscript", "sklearn", "safetensors"}


def imported(source: str) -> set[str]:
    """Top-level names of all modules that a source imports, at whatever depth of the code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


def sources(room: str) -> list[Path]:
    return [ROOT / "elude.py"] if room == "elude" else sorted((ROOT / room).rglob("*.py"))


def forbidden(room: str) -> set[str]:
    above = set(FLOORS[FLOORS.index(room) + 1 :])
    return above | TORCH_SIDE if room == "handlers" else above


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_downwards(room: str) -> None:
    for path in sources(room):
        climbing = imported(path.read_text()) & forbidden(room)
        assert not climbing, f"{path.relative_to(ROOT)} imports {sorted(climbing)}, which its floor may not"


def test_the_check_sees_a_climbing_import() -> None:
    assert imported("def f():\n    from quality.gate.judge import judge\n") & forbidden("handlers")
    assert imported("import torch.nn\n") & forbidden("handlers")


@pytest.mark.parametrize("code", ["import elude", "import elude; elude.app", "import handlers.service"])
def test_no_torch_is_loaded(code: str) -> None:
    check = f"import sys; {code}; sys.exit('torch loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
