"""Small ONNX files as others write them, made by hand; imported by tests as ``from _onnx_files import ...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from elude.exporter.models.options import ModelOptions
from elude.exporter.onnx_files.layers import OnnxLayer
from elude.exporter.onnx_files.read_file import OnnxFile, read_onnx
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.handlers.images.preprocess import Preprocess

SIDE, TOKENS, WIDTH, CLASSES = 8, 16, 6, 3


def grey(side: int = SIDE) -> Preprocess:
    """One channel, as it is, in [-1, 1]."""
    return Preprocess((1, side, side), "nearest", 1.0, "center", (0.5,), (0.5,))


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of ``blocks``, as the file stores them."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "patch.weight": normal(4, 1, 2, 2),
        "patch.bias": normal(4),
        "onnx::MatMul_7": normal(4, WIDTH),
        "fc1.bias": normal(WIDTH),
        "mixing": normal(WIDTH, WIDTH),
        "head.weight": normal(CLASSES, WIDTH),
        "head.bias": normal(CLASSES),
    }


def blocks(
    path: Path, *, batch: int | str = "n", opset: int = 17, shape: Sequence[int | str] = (), **more: Any
) -> Path:
    """Write a file: a convolution in patches, two layers over tokens with a residual connection, the mean, a head.

    Args:
        path: the file.
        batch: its first axis.
        opset: of the operators.
        shape: of the input, instead of the usual one.
        more: arrays that replace those of ``arrays``.
    """
    stored = arrays() | more
    nodes = [
        helper.make_node("Conv", ["image", "patch.weight", "patch.bias"], ["map"], name="/patch/Conv", strides=[2, 2]),
        helper.make_node("Reshape", ["map", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["tokens", "onnx::MatMul_7"], ["product"], name="/blocks/blocks.0/fc1/MatMul"),
        helper.make_node("Add", ["fc1.bias", "product"], ["fc1"], name="/blocks/blocks.0/fc1/Add"),
        helper.make_node("Relu", ["fc1"], ["active"]),
        helper.make_node("MatMul", ["active", "mixing"], ["mixed"]),
        helper.make_node("Add", ["mixed", "fc1"], ["summed"]),
        helper.make_node("ReduceMean", ["summed"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "head.weight", "head.bias"], ["scores"], name="head", transB=1),
    ]
    given = list(shape) or [batch, 1, SIDE, SIDE]
    first = batch if isinstance(batch, int) else 0
    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    tensors.append(numpy_helper.from_array(np.array([first, 4, TOKENS]), "rows"))
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def read(path: Path, **options: Any) -> OnnxFile:
    """Read a file as classes of three names."""
    chosen = {"preprocess": grey(), "labels": ["a", "b", "c"]} | options
    return read_onnx(path, ModelOptions(**chosen))


def random_split(layer: OnnxLayer, parts: int = 3, seed: int = 0) -> LayerSplit:
    """Every unit in ``parts`` sub-units with random sharing sets."""
    masks = np.random.default_rng(seed).integers(1, 2**parts, (layer.units, layer.inputs)).astype(np.uint64)
    counts = np.full(layer.units, parts, np.int64)
    assert (masks <= full_masks(counts)[:, None]).all()
    means = np.zeros((layer.units * parts, layer.inputs), np.float32)
    return LayerSplit(layer.name, counts, masks, np.full(layer.units, np.nan, np.float32), means)
