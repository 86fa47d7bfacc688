"""The packages are layers: each imports only what lies below it, and ``handlers`` and the command line load no
torch. Nor do the files import in a circle, nor the folders inside a package.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
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


def modules() -> dict[str, str]:
    """All modules of elude and their sources; the four folders lie in ``elude/`` through links."""
    folders = [ROOT / "elude", *(ROOT / "elude" / layer for layer in LAYERS)]
    paths = {path.relative_to(ROOT).with_suffix("") for folder in folders for path in folder.rglob("*.py")}
    names = {".".join(path.parts).removesuffix(".__init__"): path for path in paths}
    return {name: (ROOT / path).with_suffix(".py").read_text() for name, path in names.items()}


def dotted_imports(source: str) -> Iterator[str]:
    """All that a source imports, lazily or for its types too: ``a.b`` for ``import a.b`` and ``from a import b``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def folder_of(module: str) -> str:
    """The folder of a module inside its package; a file that lies loose in a package stands for itself."""
    return ".".join(module.split(".")[:3])


def circle(sources: Mapping[str, str], *, of_folders: bool) -> list[str]:
    """Modules, or folders, each of which imports the one before; empty if there are none."""
    graph: defaultdict[str, set[str]] = defaultdict(set)
    place = folder_of if of_folders else str
    for module, source in sources.items():
        names = {name if name in sources else name.rpartition(".")[0] for name in dotted_imports(source)}
        graph[place(module)] |= {place(name) for name in names & set(sources)} - {place(module)}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("of_folders", [False, True], ids=["files", "folders"])
def test_nothing_imports_in_a_circle(of_folders: bool) -> None:
    sources = modules()
    assert {"elude", "elude.handlers.service", "elude.quality.gate.judge", "elude.cli.demo"} <= set(sources)
    assert not circle(sources, of_folders=of_folders)


def test_a_circle_is_seen() -> None:
    lazy = "def f():\n    from elude.p.a import one\n"
    assert circle({"elude.p.a.one": "import elude.p.b.two", "elude.p.b.two": lazy, "elude.p.a": ""}, of_folders=True)
    assert circle({"elude.p.a": "from elude.p import b", "elude.p.b": "from elude.p.a import name"}, of_folders=False)
    assert not circle({"elude.p.a": "from elude.p import b", "elude.p.b": "import elude"}, of_folders=False)


@pytest.mark.parametrize("code", ["import elude", "import elude.cli; elude.cli.app", "import elude.handlers.service"])
def test_no_torch_is_loaded(code: str) -> None:
    check = f"import sys; {code}; sys.exit('torch loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
