"""The packages are layers: each imports only what lies below it, and ``handlers`` and the command line load no
torch.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("handlers", "exporter", "quality", "model_store", "cli")  # lowest first
TORCH_SIDE = {"torch", "torchvision", "timm", "onnx", "onnxscript", "sklearn", "safetensors"}


def imported(source: str) -> set[str]:
    """All modules that a source imports, at whatever depth of the code: of ``elude`` its package, of others the
    top-level name.
    """
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            modules |= {f"elude.{alias.name}" for alias in node.names} if module == "elude" else {module}
    return {module.split(".")[1] if module.startswith("elude.") else module.split(".")[0] for module in modules}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / "elude" / package).rglob("*.py"))


def forbidden(package: str) -> set[str]:
    above = set(LAYERS[LAYERS.index(package) + 1 :])
    return above | TORCH_SIDE if package == "handlers" else above


@pytest.mark.parametrize("package", LAYERS)
def test_imports_point_downwards(package: str) -> None:
    assert sources(package)
    for path in sources(package):
        climbing = imported(path.read_text()) & forbidden(package)
        assert not climbing, f"{path.relative_to(ROOT)} imports {sorted(climbing)}, which its layer may not"


def test_every_import_goes_through_the_one_name() -> None:
    """``import exporter`` works in a checkout, and nowhere else."""
    folders = [ROOT / "tests", ROOT / "benchmarks", *(ROOT / "elude" / package for package in LAYERS)]
    for path in [file for folder in folders for file in folder.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {module.split(".")[0] for module in modules} & set(LAYERS), (
                f"{path.relative_to(ROOT)} imports {modules}"
            )


def test_the_check_sees_a_climbing_import() -> None:
    assert imported("def f():\n    from elude.quality.gate.judge import judge\n") & forbidden("handlers")
    assert imported("from elude import quality") & forbidden("handlers")
    assert imported("import torch.nn\n") & forbidden("handlers")


@pytest.mark.parametrize("code", ["import elude", "import elude.cli; elude.cli.app", "import elude.handlers.service"])
def test_no_torch_is_loaded(code: str) -> None:
    check = f"import sys; {code}; sys.exit('torch loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
