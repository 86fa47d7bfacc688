"""The code that travels in an archive: the modules of ``elude`` that serving imports, and no others."""

from __future__ import annotations

import ast
from pathlib import Path

import elude.handlers
from elude.handlers.torchserve.archives import HANDLER


def run_time_code() -> dict[str, Path]:
    """Entry in an archive → file of this installation, the handler included."""
    root = Path(elude.handlers.__file__).parents[1]
    modules = {f"elude/{path.relative_to(root).as_posix()}": path for path in imported_modules(root)}
    return modules | {HANDLER: root / "handlers" / "torchserve" / "handler.py"}


def imported_modules(root: Path) -> list[Path]:
    """The modules of ``elude`` that the handler imports, directly or not.

    Args:
        root: the package's folder.
    """
    paths = {"elude": root / "__init__.py"}
    waiting = _imported(root / "handlers" / "torchserve" / "handler.py")
    while waiting:
        module = waiting.pop()
        path = root.joinpath(*module.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module not in paths and path.is_file():
            paths[module] = path
            waiting += [module.rpartition(".")[0], *_imported(path)]
    return sorted(paths.values())


def _imported(path: Path) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [module for module in modules if module.startswith("elude.handlers")]
