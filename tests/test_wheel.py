"""The wheel: what is in it, and that it is all a newcomer needs, outside the repository and with nothing of it on
the path.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from _shell import Shell

ROOT = Path(__file__).parent.parent
NEEDED = (
    "elude/__init__.py",
    "elude/py.typed",
    "elude/exporter/embedded/model/model.safetensors",
    "elude/exporter/embedded/probe.tar",
    "elude/exporter/embedded/evaluation.tar",
    "elude/handlers/torchserve/handler.py",
    "elude/handlers/torchserve/metrics.yaml",
    "elude/quality/policies/default.toml",
    "elude/quality/report/report.html.j2",
    "elude/quality/scores/reference/quba_reference_models.csv",
    "elude/quality/suites/protocols/imagenet-1k.toml",
)
MEGABYTES = 12


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("elude-*.whl")
    return made


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin/`` of a virtual environment with the wheel; its dependencies are those of this one, without its editable
    elude.
    """
    home = tmp_path_factory.mktemp("newcomer") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=300)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (packages / "dependencies.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # a .pth file within it is not read
    subprocess.run([home / "bin" / "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, timeout=300)
    return home / "bin"


def test_what_the_wheel_holds(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in NEEDED if name not in names]
    code = {
        f"elude/{path.relative_to(ROOT).as_posix()}"
        for package in ("exporter", "handlers", "quality", "model_store")
        for path in (ROOT / package).rglob("*.py")
    }
    assert not code - set(names)
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"elude"}
    assert not [name for name in names if "__pycache__" in name]
    assert wheel.stat().st_size < MEGABYTES * 1e6


def test_files_of_its_users_with_the_names_of_our_packages_do_no_harm(binaries: Path, tmp_path: Path) -> None:
    for name in ("handlers", "quality", "exporter", "model_store"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file of a user was imported')\n")
    (tmp_path / "test_of_a_user.py").write_text(
        "import elude\n\n\ndef test_it():\n    assert elude.Edit.ablate(3).gain == 0.0\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for command in (
        [binaries / "elude", "--version"],
        [binaries / "python", "-m", "pytest", "-q", "--elude-bundle=none", "test_of_a_user.py"],
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=300
        )
        assert "of a user was imported" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
    code = "import elude, elude.quality.gate.judge, elude.exporter.export.pipeline; print(elude.__file__)"
    done = subprocess.run(
        [binaries / "python", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout


@pytest.mark.slow
@pytest.mark.server
def test_the_demo_runs_outside_the_repository(binaries: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": ""}
    where = subprocess.run(
        [binaries / "python", "-c", "import elude, elude.exporter; print(elude.__file__, elude.exporter.__file__)"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
    ).stdout  # fmt: skip
    assert str(ROOT) not in where
    done = subprocess.run(
        [binaries / "elude", "demo", "--out", "demo"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "demo" / "bundle" / "report.html").is_file()
    gate = re.search(r"all checks +│ .*?│", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert gate is not None
    assert gate.group().split() == re.search(r"all checks +│ .*?│", done.stdout).group().split()  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize(("page", "least_change"), [("own-model.md", 0.1), ("quickstart.md", 1)])
def test_a_newcomer_follows_a_page_word_for_word(page: str, least_change: float, binaries: Path) -> None:
    """All shell and Python blocks of the page, in order, in an empty folder, with nothing but the wheel's
    ``elude`` and ``python``.
    """
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"(<!-- skip: next[^\n]*-->\n)?```(sh|python)\n(.*?)```", text, re.DOTALL)
    assert any("elude call steer" in block for _, _, block in blocks)
    shell, python = Shell(binaries), ""
    try:
        for skipped, language, block in blocks:
            if skipped:
                continue
            if language == "sh":
                printed = shell.run(block)
                if "call steer" in block:  # each example moves some output where a reader sees it
                    changes = [float(text) for text in re.findall(r'"max_output_change": ([-+.e\d]+)', printed)]
                    assert changes
                    assert min(changes) > least_change
            else:  # as in one session: what stood before is there
                python += block
                (shell.folder / ".page.py").write_text(python, encoding="utf-8")
                shell.run("python .page.py")
    finally:
        shell.close()
