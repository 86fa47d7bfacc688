"""The code that an archive carries is all that serving imports: it must load by itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from elude.handlers.torchserve.archives import HANDLER
from elude.handlers.torchserve.run_time_code import run_time_code

LOAD_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
elsewhere = {name: module.__file__ for name, module in sys.modules.items()
             if name.partition(".")[0] == "elude" and not module.__file__.startswith(sys.path[0])}
assert not elsewhere, elsewhere
"""


def load(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import each module of the archive from ``folder``, before any installed ``elude``."""
    names = [
        Path(entry).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__") for entry in run_time_code()
    ]
    return subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{LOAD_ALL}", *names],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    for entry, path in run_time_code().items():
        (tmp_path / entry).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / entry)
    return tmp_path


def test_the_code_of_an_archive_loads_by_itself(unpacked: Path) -> None:
    assert (unpacked / HANDLER).is_file()
    done = load(unpacked)
    assert done.returncode == 0, done.stderr


def test_a_module_that_was_left_behind_is_noticed(unpacked: Path) -> None:
    (unpacked / "elude" / "handlers" / "errors.py").unlink()
    assert "elude.handlers.errors" in load(unpacked).stderr


def test_what_only_the_package_needs_is_not_loaded(unpacked: Path) -> None:
    with (unpacked / "elude" / "__init__.py").open("a") as package:
        package.write("\nfrom elude.instead import no_attribute\n")
    assert "elude.instead" in load(unpacked).stderr
