"""The notebooks in examples/, run from the first cell to the last in a folder of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb"))
# Cells that show pictures, at least: a result that lost its page would be shown as text.
PICTURES = {"gate_a_release": 0, "look_into_a_model": 5, "steer_and_serve": 4}
SERVE = {"steer_and_serve"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.server if name in SERVE else ()) for name in NOTEBOOKS]
)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in SERVE:
        pytest.importorskip("ts", reason="TorchServe is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    (tmp_path / "here").mkdir()
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "here")}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert sum("<img" in page for page in pages) >= PICTURES[name]
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs(name: str) -> None:
    content = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]


def test_the_folder_s_page_names_each_notebook() -> None:
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert {name for name in NOTEBOOKS if f"]({name}.ipynb)" in page} == set(PICTURES) == set(NOTEBOOKS)
