"""The smallest model that serving takes, written by hand: logits and sub-units are the mean red, green and blue."""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.images.preprocess import Preprocess

SIDE = 4
LAYER = LayerInfo("fc2", "linear", 2, 4, (2, 1), 0)  # unit 0 = red + green, unit 1 = blue
PREPROCESS = Preprocess((3, SIDE, SIDE), "nearest", 1.0, "center", (0.0,) * 3, (1.0,) * 3)
LABELS = ["red", "green", "blue"]


def tiny_model(mark: bytes = b"") -> bytes:
    """An ONNX file; another ``mark`` makes other bytes of the same model. Edits add their gains to every logit."""
    initializers = [
        numpy_helper.from_array(np.array(False), "inspect"),
        numpy_helper.from_array(np.zeros((1, 0), np.int64), "steer_sub_unit"),
        numpy_helper.from_array(np.zeros((1, 0), np.float32), "steer_gain"),
        numpy_helper.from_array(np.zeros((1, 0), np.float32), "steer_offset"),
        numpy_helper.from_array(np.zeros((1, 0), np.int64), "steer_patches"),
        numpy_helper.from_array(np.array([[1, 0], [1, 0], [0, 1]], np.float32), "merge"),
        numpy_helper.from_array(np.array([1], np.int64), "first"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixel_values"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Unsqueeze", ["means", "first"], ["fc2.sub_units"]),
        helper.make_node("MatMul", ["fc2.sub_units", "merge"], ["fc2.units"]),
    ]
    total = "zero"
    for name in ("inspect", "steer_sub_unit", "steer_patches", "steer_gain", "steer_offset"):
        nodes += [
            helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", [f"{name}.float"], [f"{name}.sum"], keepdims=0),
        ]
        weight = numpy_helper.from_array(np.array(1.0 if name == "steer_gain" else 0.0, np.float32), f"{name}.weight")
        initializers.append(weight)
        nodes += [
            helper.make_node("Mul", [f"{name}.sum", weight.name], [f"{name}.part"]),
            helper.make_node("Add", [total, f"{name}.part"], [f"{name}.total"]),
        ]
        total = f"{name}.total"
    nodes.append(helper.make_node("Add", ["means", total], ["logits"]))
    edits = ["N", "E"]
    inputs = [
        helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, SIDE, SIDE]),
        helper.make_tensor_value_info("inspect", TensorProto.BOOL, []),
        helper.make_tensor_value_info("steer_sub_unit", TensorProto.INT64, edits),
        helper.make_tensor_value_info("steer_gain", TensorProto.FLOAT, edits),
        helper.make_tensor_value_info("steer_offset", TensorProto.FLOAT, edits),
        helper.make_tensor_value_info("steer_patches", TensorProto.INT64, edits),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("fc2.units", TensorProto.FLOAT, ["N", 1, 2]),
        helper.make_tensor_value_info("fc2.sub_units", TensorProto.FLOAT, ["N", 1, 3]),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    properties = {"elude.schema_version": "1", "elude.layers": json.dumps([LAYER.to_json()]), "mark": mark.hex()}
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
