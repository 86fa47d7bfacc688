"""Emit the ONNX graph: the plain export of the model, grafted so that any client can inspect and steer it
(docs/graph.md).
"""

from elude.exporter.graph.bake import bake
from elude.exporter.graph.describe import describe
from elude.exporter.graph.plain import plain_export
from elude.exporter.graph.write_graph import emit

__all__ = ["bake", "describe", "emit", "plain_export"]
