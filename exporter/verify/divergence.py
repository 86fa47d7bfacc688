"""Where a file first leaves torch: the outputs of modules, one after another, against the values that the graph
makes for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elude.exporter.graph.site import scopes
from elude.exporter.models.hooks import watching
from elude.exporter.verify.compare import Array, errors, rounding, scale_of
from elude.exporter.verify.report import Divergence

WINDOW = 2  # a folded normalisation's value may stand for the module after it


def first_divergence(
    original: nn.Module, path: Path, pixels: NDArray[np.float32], terms: int, dtype: str
) -> Divergence | None:
    """Compare module by module, not optimised; None if no value that can be compared is off.

    Args:
        original: the torch model.
        path: the file.
        pixels: float32 (N, 3, H, W).
        terms: as for the tolerance of an output.
        dtype: of the file.
    """
    called: list[tuple[str, Array]] = []
    with _watch(original, called), torch.inference_mode():
        original(torch.from_numpy(pixels))
    order = {name: number for number, (name, _) in enumerate(called)}
    model = ir.load(path)
    places = _places(model.graph, order)
    values = _run(model, [value for value, _ in places], pixels)
    for number, ((value, name), got) in enumerate(zip(places, values, strict=True)):
        candidates = [array for _, array in called[order[name] : order[name] + WINDOW] if array.shape == got.shape]
        worst = [(float(errors(got, array).max()), rounding(terms, scale_of(array), dtype)) for array in candidates]
        if worst and all(error > allowed for error, allowed in worst):
            node = value.producer()
            assert node is not None
            return Divergence(str(node.name), node.op_type, name, *worst[0], number)
    return None


@contextmanager
def _watch(model: nn.Module, called: list[tuple[str, Array]]) -> Iterator[None]:
    """Record the output of every module without children, in the order in which they end; only modules that run
    once.
    """
    counts: dict[str, int] = {}

    def record(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        counts[name] = counts.get(name, 0) + 1
        if isinstance(output, Tensor):
            called.append((name, output.float().numpy().copy()))

    leaves = {name: module for name, module in model.named_modules() if name and not list(module.children())}
    try:
        with watching(leaves, record):
            yield
    finally:
        called[:] = [(name, array) for name, array in called if counts[name] == 1]


def _places(graph: ir.Graph, order: dict[str, int]) -> list[tuple[ir.Value, str]]:
    """Values that leave exactly one of the modules, in the graph's order."""
    inside: dict[str, list[ir.Node]] = {}
    for node in graph:
        for name in scopes(node):
            if name in order:
                inside.setdefault(name, []).append(node)
    places = []
    for name, nodes in inside.items():
        members = set(nodes)
        leaving = [
            value
            for node in nodes
            for value in node.outputs
            if value.is_graph_output() or any(use.node not in members for use in value.uses())
        ]
        if len(leaving) == 1:
            places.append((leaving[0], name))
    position = {node: number for number, node in enumerate(graph)}
    return sorted(places, key=lambda place: position[place[0].producer()])  # type: ignore[index]


def _run(model: ir.Model, values: Sequence[ir.Value], pixels: NDArray[np.float32]) -> list[Array]:
    """The values in float32, with nothing optimised."""
    graph = model.graph
    names = []
    for value in values:
        node = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, outputs=[ir.Value(name=f"{value.name}.elude.seen")])
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        graph.append(node)
        graph.outputs.append(node.outputs[0])
        names.append(str(node.outputs[0].name))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:  # as a file: a serialised model ends at 2 GiB
        ir.save(model, Path(folder) / "model.onnx", external_data="model.onnx.data")
        session = ort.InferenceSession(Path(folder) / "model.onnx", options, providers=["CPUExecutionProvider"])
        found: list[Array] = session.run(names, {"pixel_values": pixels})
    return found
