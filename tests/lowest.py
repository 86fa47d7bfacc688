"""Make a virtual environment where serving's libraries have the lowest versions that ``pyproject.toml`` allows:
``python tests/lowest.py .venv-lowest``. All other libraries come from the environment that runs this.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVING = {
    "numpy",
    "pillow",
    "jinja2",
    "onnxruntime",
    "starlette",
    "uvicorn",
    "h11",
    "prometheus-client",
    "python-multipart",
    "cryptography",
    "pyyaml",
    "psutil",
}
TEST_CLIENT = ("httpx", "httpcore")  # what the test client of the lowest starlette asks for


def lowest() -> list[str]:
    """``NAME==VERSION`` of the libraries that serving imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    bounds = {name: bound for name, bound in (line.split(">=") for line in lines if ">=" in line) if name in SERVING}
    assert bounds.keys() == SERVING, f"pyproject.toml gives no lower bound of {SERVING - bounds.keys()}"
    return [f"{name}=={bound}" for name, bound in bounds.items()]


def main(home: Path) -> None:
    venv.create(home, clear=True, with_pip=True)
    subprocess.run([home / "bin" / "pip", "install", "--quiet", "--no-deps", *lowest(), *TEST_CLIENT], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    # They come behind its own libraries on the path, so that the lowest versions are the ones imported.
    Path(packages, "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
