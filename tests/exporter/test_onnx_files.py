"""An ONNX file without its PyTorch source: its layers are found, named, split, steered and compared with the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from _images import noise
from _onnx_files import CLASSES, SIDE, TOKENS, WIDTH, arrays, blocks, grey, random_split, read
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from elude.exporter.export.onnx_job import write_file
from elude.exporter.onnx_files.choose import choose_layers
from elude.exporter.onnx_files.collect import Watched, windows
from elude.exporter.onnx_files.layers import find_layers
from elude.exporter.onnx_files.read_file import OnnxFile
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.exporter.verify.check_onnx import verify_onnx
from elude.exporter.verify.verify_bundle import verify_file
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import BundleError, EquivalenceError, UnsupportedLayerError, UsageError


def pixels(count: int = 5, side: int = SIDE, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, side, side)).astype(np.float32)


def split_file(file: OnnxFile, path: Path, *names: str) -> tuple[list[Any], list[Any]]:
    """Split layers at random and write the file."""
    layers = [layer for layer in file.graph()[1] if layer.name in names]
    splits = [random_split(layer, seed=number) for number, layer in enumerate(layers)]
    write_file(file, path, layers, splits)
    return layers, splits


def test_layers_are_named_after_their_nodes_and_hold_the_weights_of_the_file(tmp_path: Path) -> None:
    stored = arrays()
    layers = {layer.name: layer for layer in read(blocks(tmp_path / "m.onnx")).graph()[1]}
    assert list(layers) == ["patch", "blocks.0.fc1", "MatMul_6", "head"]
    assert [layer.kind for layer in layers.values()] == ["conv", "linear", "linear", "linear"]
    np.testing.assert_array_equal(layers["patch"].weight(), stored["patch.weight"])
    np.testing.assert_array_equal(layers["blocks.0.fc1"].weight(), stored["onnx::MatMul_7"].T)
    np.testing.assert_array_equal(layers["blocks.0.fc1"].bias(), stored["fc1.bias"])
    assert layers["MatMul_6"].bias() is None  # what follows it adds an activation
    np.testing.assert_array_equal(layers["head"].weight(), stored["head.weight"])


def test_without_edits_the_split_file_has_the_bits_of_the_given_one(tmp_path: Path) -> None:
    given_file = blocks(tmp_path / "m.onnx")
    file = read(given_file)
    split_file(file, tmp_path / "s.onnx", "blocks.0.fc1", "patch")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = ort.InferenceSession(given_file, options).run(None, {"image": pixels()})[0]
    assert GraphSession(tmp_path / "s.onnx", optimise=False).run(pixels()).output.tobytes() == wanted.tobytes()


def test_sub_units_are_those_that_numpy_computes_from_the_files_weights(tmp_path: Path) -> None:
    file, stored = read(blocks(tmp_path / "m.onnx")), arrays()
    layers, splits = split_file(file, tmp_path / "s.onnx", "blocks.0.fc1")
    x = pixels().astype(np.float64)
    cut = x.reshape(5, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(5, TOKENS, 4)  # windows of 2×2, row by row
    q = cut @ stored["patch.weight"].reshape(4, 4).T + stored["patch.bias"]
    weights, bias = sub_unit_weights(layers[0].weight(), splits[0]), sub_unit_bias(layers[0].bias(), splits[0])
    found = GraphSession(tmp_path / "s.onnx").run(pixels(), inspect=True)
    np.testing.assert_allclose(found.sub_units["blocks.0.fc1"], q @ weights.T + bias, rtol=1e-4, atol=1e-5)
    z = q @ stored["onnx::MatMul_7"] + stored["fc1.bias"]
    np.testing.assert_allclose(found.units["blocks.0.fc1"], z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["patch", "blocks.0.fc1", "MatMul_6", "head"])
@pytest.mark.parametrize("opset", [13, 17])
def test_each_kind_of_layer_passes_the_check_against_the_file(tmp_path: Path, name: str, opset: int) -> None:
    file = read(blocks(tmp_path / "m.onnx", opset=opset))
    layers, splits = split_file(file, tmp_path / "s.onnx", name)
    report = verify_onnx(file, tmp_path / "s.onnx", splits, layers, pixels())
    assert report.rewrite_max == 0
    assert any("steered" in row.output for row in report.runtime)


def test_steering_changes_what_the_check_compares(tmp_path: Path) -> None:
    file = read(blocks(tmp_path / "m.onnx"))
    split_file(file, tmp_path / "s.onnx", "blocks.0.fc1")
    session = GraphSession(tmp_path / "s.onnx")
    plain, steered = session.run(pixels()).output, session.run(pixels(), [[Edit(4, 3.0, 1.0)]]).output
    assert np.abs(plain - steered).max() > 0.01 * np.abs(plain).max()


def test_a_file_with_other_weights_does_not_pass(tmp_path: Path) -> None:
    changed = arrays()["onnx::MatMul_7"].copy()
    changed[0, 0] += 0.01
    other = read(blocks(tmp_path / "o.onnx", **{"onnx::MatMul_7": changed}))
    file = read(blocks(tmp_path / "m.onnx"))
    layers, splits = split_file(file, tmp_path / "s.onnx", "blocks.0.fc1")
    with pytest.raises(EquivalenceError, match="sum to their unit"):
        verify_onnx(other, tmp_path / "s.onnx", splits, other.graph()[1][1:2], pixels())
    wrong = [random_split(layers[0], seed=9)]
    with pytest.raises(EquivalenceError, match="weights"):
        verify_onnx(file, tmp_path / "s.onnx", wrong, layers, pixels())


def test_of_layers_that_share_weights_each_is_split_by_itself(tmp_path: Path) -> None:
    model = onnx.load(blocks(tmp_path / "m.onnx"))
    node = next(node for node in model.graph.node if node.name == "head")
    again = helper.make_node("MatMul", ["summed", "mixing"], ["deeper"], name="/again/MatMul")
    mean = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    mean.input[0] = "deeper"
    place = list(model.graph.node).index(mean)
    model.graph.node.insert(place, again)
    assert node.op_type == "Gemm"
    onnx.save(model, tmp_path / "shared.onnx")
    file = read(tmp_path / "shared.onnx")
    layers, splits = split_file(file, tmp_path / "s.onnx", "again")
    assert verify_onnx(file, tmp_path / "s.onnx", splits, layers, pixels()).passed


@settings(max_examples=12, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_convolutions_of_any_geometry_are_gathered_and_steered(
    tmp_path_factory: pytest.TempPathFactory,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pads: tuple[int, ...],
    groups: int,
    seed: int,
) -> None:
    folder, rng = tmp_path_factory.mktemp("conv"), np.random.default_rng(seed)
    first = rng.standard_normal((4, 1, 1, 1)).astype(np.float32)
    weight = rng.standard_normal((4, 4 // groups, *kernel)).astype(np.float32)
    geometry = {"strides": list(stride), "dilations": list(dilation), "pads": list(pads), "group": groups}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["wide"], name="a"),
        helper.make_node("Conv", ["wide", "weight", "bias"], ["map"], name="b", **geometry),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    stored = {"first": first, "weight": weight, "bias": rng.standard_normal(4).astype(np.float32)}
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 7, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "c.onnx")
    file = read(folder / "c.onnx", preprocess=grey(7), labels=list("abcd"))
    layers, splits = split_file(file, folder / "s.onnx", "b")
    q, z = Watched(file, layers)(pixels(2, 7))["b"]
    flat = z.reshape(2, 4, -1)
    image, token = np.repeat([0, 1], flat.shape[2]), np.tile(np.arange(flat.shape[2]), 2)
    gathered = windows(layers[0], q, image, token).reshape(len(token), groups, 4 // groups, -1)
    rows = weight.reshape(groups, 4 // groups, 4 // groups, -1)
    products = np.einsum("tgcw,gucw->tgu", gathered, rows).reshape(len(token), 4) + stored["bias"]
    np.testing.assert_allclose(products, flat[image, :, token], rtol=1e-4, atol=1e-4)
    assert verify_onnx(file, folder / "s.onnx", splits, layers, pixels(4, 7)).passed


def change(path: Path, edit: Any) -> Path:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    return path


def test_what_cannot_be_split_says_why(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(BundleError, match="missing"):
        read(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BundleError, match="text"):
        read(tmp_path / "text.onnx")
    with pytest.raises(UsageError, match="preprocess"):
        read(blocks(path), preprocess=None)
    with pytest.raises(UsageError, match="input_size"):
        read(blocks(path), preprocess=grey(9))
    with pytest.raises(UsageError, match="scores"):
        read(blocks(path), output="nothing")
    with pytest.raises(UsageError, match="mean"):
        read(blocks(path), labels=None)
    single = {"head.weight": np.ones((1, WIDTH), np.float32), "head.bias": np.zeros(1, np.float32)}
    with pytest.raises(UsageError, match=r"one number per image.*regression"):
        read(blocks(path, **single), labels=None, kind="classes")
    with pytest.raises(UnsupportedLayerError, match="channels last"):
        read(blocks(path, shape=["n", SIDE, SIDE, 1]))
    with pytest.raises(UnsupportedLayerError, match="dynamic batch"):
        read(blocks(path, batch=1))
    second = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1])
    with pytest.raises(UsageError, match="image, mask"):
        read(change(blocks(path), lambda model: model.graph.input.append(second)))
    split_file(read(blocks(path)), tmp_path / "s.onnx", "head")
    with pytest.raises(UsageError, match="elude"):
        read(tmp_path / "s.onnx")


def test_files_without_a_layer_are_refused_and_quantised_ones_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["stored", "scale"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["map"], name="c"),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    stored = [
        numpy_helper.from_array(np.ones((3, 1, 2, 2), np.int8), "stored"),
        numpy_helper.from_array(np.float32(0.1), "scale"),
    ]
    graph = helper.make_graph(
        nodes,
        "q",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        stored,
    )
    path = tmp_path / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    file = read(path)
    layers, reasons = find_layers(ir.from_proto(file.ready).graph)
    with pytest.raises(UnsupportedLayerError, match="quantised"):
        choose_layers(file, layers, reasons, "last")


def test_an_inner_value_can_be_the_output_and_is_pooled(tmp_path: Path) -> None:
    file = read(blocks(tmp_path / "m.onnx"), output="summed", pool="first", kind="embedding", labels=None)
    layers, splits = split_file(file, tmp_path / "s.onnx", "blocks.0.fc1")
    assert verify_onnx(file, tmp_path / "s.onnx", splits, layers, pixels()).rewrite_max == 0
    assert GraphSession(tmp_path / "s.onnx").output_name == "embedding"


WITHOUT_TORCH = """
import sys
class Block:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "transformers"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Block())
from elude.cli import main
main()
"""


def test_the_whole_way_runs_without_torch(tmp_path: Path) -> None:
    given_file = blocks(tmp_path / "m.onnx")
    noise(tmp_path / "photos", 30, SIDE)
    (tmp_path / "preprocess.json").write_text(json.dumps(grey().to_json()))
    (tmp_path / "labels.txt").write_text("a\nb\nc")
    start = [sys.executable, "-c", WITHOUT_TORCH]
    run = subprocess.run(
        [*start, "export", str(given_file), "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "bundle"),
         "--preprocess", str(tmp_path / "preprocess.json"), "--labels", str(tmp_path / "labels.txt"),
         "--layers", "blocks.0.fc1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    again = subprocess.run(
        [*start, "verify", str(tmp_path / "bundle"), "--model", str(given_file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    with pytest.raises(UsageError, match="--model"):
        verify_file(tmp_path / "bundle")
