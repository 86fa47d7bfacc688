"""A few lines to write ONNX nodes like function calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


class Ops:
    """Makes nodes in order and collects them in ``nodes``; constants become initialisers of the main graph.

    Initialisers of the main graph are visible in all its sub-graphs, so a constant is stored once
    and the sub-graphs of ``If`` nodes hold nothing but nodes.

    Args:
        graph: the main graph.
        prefix: start of every name that is made here, unique in the graph.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self.nodes: list[ir.Node] = []

    def __call__(
        self, op: str, *inputs: ir.Value | None, name: str | None = None, doc: str | None = None, **attributes: Any
    ) -> ir.Value:
        """Append a node with one output and return the output."""
        return self.many(op, inputs, 1, name, doc, **attributes)[0]

    def many(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        name: str | None = None,
        doc: str | None = None,
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Append a node with several outputs and return them."""
        label = name or f"{self.prefix}/{len(self.nodes)}.{op}"
        results = [ir.Value(name=label if outputs == 1 else f"{label}:{i}") for i in range(outputs)]
        node = ir.node(op, inputs, attributes, outputs=results, name=label, doc_string=doc)
        self.nodes.append(node)
        return tuple(node.outputs)

    def constant(self, value: NDArray[Any] | int | list[int], name: str | None = None) -> ir.Value:
        """An initialiser; Python integers become int64. The same unnamed value is stored once."""
        array = np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        if name is None:
            digits = "_".join(str(item) for item in array.reshape(-1).tolist())
            name = f"elude/{array.dtype}_{'x'.join(map(str, array.shape))}_{digits}"
        if name not in self.graph.initializers:
            tensor = ir.tensor(array, name=name)
            value_info = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            self.graph.register_initializer(value_info)
        return self.graph.initializers[name]

    def branch(
        self,
        condition: ir.Value,
        then: Callable[[Ops], list[ir.Value]],
        otherwise: Callable[[Ops], list[ir.Value]],
        name: str,
        doc: str,
    ) -> tuple[ir.Value, ...]:
        """An ``If``: only the branch that is taken costs anything."""
        graphs, counts = {}, set()
        for key, build in (("then_branch", then), ("else_branch", otherwise)):
            ops = Ops(self.graph, f"{name}/{key[:4]}")
            outputs = build(ops)
            graphs[key] = ir.Graph((), outputs, nodes=ops.nodes, name=f"{name}/{key[:4]}")
            counts.add(len(outputs))
        (count,) = counts
        return self.many("If", [condition], count, name, doc, **graphs)


def scalar(value: float) -> NDArray[np.float32]:
    """A float32 scalar for ``Ops.constant``."""
    return np.asarray(value, np.float32)
