"""Files of torch's two exporters, split without torch, against the same model split by torch."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from _onnx_files import random_split

from elude.exporter.export.onnx_job import write_file
from elude.exporter.graph import emit
from elude.exporter.images import open_images
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import EMBEDDED_FOLDER, load_model
from elude.exporter.models.loaded import LoadedModel
from elude.exporter.models.options import ModelOptions
from elude.exporter.onnx_files.collect import collect as collect_from_file
from elude.exporter.onnx_files.read_file import OnnxFile, read_onnx
from elude.exporter.probing.probe import collect
from elude.exporter.verify.check_onnx import verify_onnx
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession

pytestmark = pytest.mark.slow
LAYERS = ["patch_embed.proj", "blocks.5.attn.qkv", "blocks.5.mlp.fc2", "head"]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("embedded")


@pytest.fixture(scope="module", params=[True, False], ids=["dynamo", "TorchScript"])
def file(request: pytest.FixtureRequest, model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> OnnxFile:
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    images = torch.zeros(2, *model.preprocess.input_size)
    batch = (
        {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if request.param else {"dynamic_axes": {"x": {0: "n"}}}
    )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(
        model.module, (images,), path, dynamo=request.param, verbose=False,
        input_names=["x"], output_names=["y"], **batch,
    )  # fmt: skip
    return read_onnx(path, ModelOptions(preprocess=model.preprocess, labels=model.labels))


def test_sub_units_and_steering_are_those_of_the_torch_way(file: OnnxFile, model: LoadedModel, tmp_path: Path) -> None:
    layers = [layer for layer in file.graph()[1] if layer.name in LAYERS]
    assert [layer.name for layer in layers] == LAYERS  # the modules' own paths
    splits = [random_split(layer, seed=number) for number, layer in enumerate(layers)]
    write_file(file, tmp_path / "from_file.onnx", layers, splits)
    modules = [find_layers(model.module, name)[0] for name in LAYERS]
    size = model.preprocess.input_size
    emit(
        model.module, splits, tmp_path / "from_torch.onnx", layers=modules,
        input_size=size, source=model.source, preprocess=model.preprocess,
    )  # fmt: skip
    pixels = np.random.default_rng(0).standard_normal((3, *size)).astype(np.float32)
    edits = [[Edit(7, 2.0), Edit(700, -1.0, 0.5)], [], [Edit(1450, 0.0)]]
    ours, torchs = (GraphSession(tmp_path / f"from_{way}.onnx") for way in ("file", "torch"))
    seen, wanted = (session.run(pixels, inspect=True) for session in (ours, torchs))
    for name in LAYERS:
        scale = np.abs(wanted.sub_units[name]).max()
        np.testing.assert_allclose(seen.sub_units[name], wanted.sub_units[name], rtol=0, atol=1e-5 * scale)
        np.testing.assert_allclose(seen.units[name], wanted.units[name], rtol=0, atol=1e-5 * scale)
    steered, expected = (session.run(pixels, edits).output for session in (ours, torchs))
    np.testing.assert_allclose(steered, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert verify_onnx(file, tmp_path / "from_file.onnx", splits, layers, pixels).rewrite_max == 0


def test_the_same_instances_are_collected(file: OnnxFile, model: LoadedModel, tmp_path: Path) -> None:
    images = open_images(EMBEDDED_FOLDER / "probe.tar").limited(40)
    layers = [layer for layer in file.graph()[1] if layer.name in LAYERS]
    found = collect_from_file(
        file, layers, images, tokens_per_image=4, seed=1, batch_size=16,
        progress=lambda done, total: None, folder=tmp_path / "probe",
    )  # fmt: skip
    modules = [find_layers(model.module, name)[0] for name in LAYERS]
    wanted = collect(model.module, modules, images, model.preprocess, tokens_per_image=4, seed=1, batch_size=16)
    for name in LAYERS:
        np.testing.assert_array_equal(found[name].token, wanted[name].token)
        np.testing.assert_array_equal(found[name].image, wanted[name].image)
        for part in ("q", "z", "pictures"):
            one, other = getattr(found[name], part), getattr(wanted[name], part)
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max(), err_msg=f"{name} {part}")
