"""The programs of docs/clients.md, run as they stand there, give what torch gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _graphs import Emitted, emitted
from _models import TinyBlocks

from elude.exporter.rewrite import graft
from elude.handlers.bundle.edits import Edit

DOCS = Path(__file__).parents[2] / "docs" / "clients.md"
UNIT, PART = 2, 0


def program(language: str) -> str:
    """The one block of a language."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture
def case(tmp_path: Path) -> Emitted:
    made = emitted(TinyBlocks(), "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "model.onnx")
    made.pixels[0].astype("<f4").tofile(tmp_path / "pixels.f32")
    return made


def check(case: Emitted, command: list[str], folder: Path) -> None:
    done = subprocess.run(
        [*command, "model.onnx", "pixels.f32", str(UNIT), str(PART)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-600:]
    got = json.loads(done.stdout)
    split, image, twin = case.splits[1], torch.from_numpy(case.pixels[:1]), graft(case.module, case.splits)
    column = int(split.first[UNIT]) + PART
    with torch.no_grad():
        expected = {"plain": case.module(image)[0], "activation": twin.sub_units(image)[split.layer][0, :, column]}
        with twin.steer([[Edit.ablate(case.splits[0].sub_units + column)]]):
            expected["steered"] = twin(image)[0]
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value.numpy(), atol=1e-5)
    assert np.abs(np.subtract(got["plain"], got["steered"])).max() > 1e-3


def test_python(case: Emitted, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(program("python"), encoding="utf-8")
    check(case, [sys.executable, "client.py"], tmp_path)


@pytest.mark.network
def test_javascript(case: Emitted, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not installed")
    installing = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "onnxruntime-web@1"]
    installed = subprocess.run(installing, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    if installed.returncode:
        pytest.skip(f"npm cannot get onnxruntime-web: {installed.stderr.strip().splitlines()[-1:]}")
    (tmp_path / "client.mjs").write_text(program("javascript"), encoding="utf-8")
    check(case, [node, "client.mjs"], tmp_path)
