"""A stranger's client: numpy and onnxruntime, names and indices from the file's metadata, and no line of this
project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from _graphs import emitted
from _models import TinyBlocks

CLIENT = """
import json, sys
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
layers = json.loads(session.get_modelmeta().custom_metadata_map["elude.layers"])
pixels = np.load(sys.argv[2])

logits = session.run(["logits"], {"pixel_values": pixels})[0]

layer = next(layer for layer in layers if layer["name"] == "blocks.1.mlp.fc2")
names = [f"{layer['name']}.units", f"{layer['name']}.sub_units"]
units, sub_units = session.run(names, {"pixel_values": pixels, "inspect": np.array(True)})
starts = np.cumsum([0, *layer["parts"][:-1]])
residual = float(np.abs(np.add.reduceat(sub_units, starts, axis=2) - units).max())

unit, part = 2, 0                      # blocks.1.mlp.fc2/u2.s0
index = layer["first"] + int(starts[unit]) + part
steered = session.run(["logits"], {
    "pixel_values": pixels,
    "steer_sub_unit": np.array([[index]], np.int64),
    "steer_gain": np.array([[0.0]], np.float32),
    "steer_offset": np.array([[2.0]], np.float32),
    "steer_patches": np.array([[0]], np.int64),
})[0]
foreign = [name for name in ("elude", "torch", "onnx") if name in sys.modules]
print(json.dumps({"logits": logits.tolist(), "steered": steered.tolist(), "residual": residual,
                  "shape": list(sub_units.shape),
                  "index": index, "activation": sub_units[..., int(starts[unit]) + part].tolist(), "foreign": foreign}))
"""


def test_a_client_without_this_project_predicts_inspects_and_steers(tmp_path: Path) -> None:
    case = emitted(TinyBlocks(), "blocks.0.mlp.fc2,blocks.1.mlp.fc2", (3, 8, 8), tmp_path / "model.onnx")
    np.save(tmp_path / "pixels.npy", case.pixels)
    (tmp_path / "client.py").write_text(CLIENT)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "client.py", "model.onnx", "pixels.npy"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    with torch.no_grad():
        expected = case.module(torch.from_numpy(case.pixels)).numpy()
    np.testing.assert_allclose(got["logits"], expected, atol=1e-5)
    assert got["foreign"] == []
    assert got["residual"] < 1e-5
    split = case.splits[1]
    assert got["shape"] == [4, 4, split.sub_units]
    assert got["index"] == case.splits[0].sub_units + split.first[2]
    # the head reads the mean over tokens, so setting a sub-unit to 2 moves each logit by (2 - mean
    # a) times the head's weight
    weight = case.module.head.weight.detach().numpy()[:, 2]  # type: ignore[union-attr, operator]
    change = 2.0 - np.mean(got["activation"], axis=1)
    np.testing.assert_allclose(np.subtract(got["steered"], expected), change[:, None] * weight, atol=1e-5)
