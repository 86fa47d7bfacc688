"""Emit the ONNX graph: the plain export of the model, grafted so that any client can inspect and steer it
(docs/graph.md). Loads no torch before ``emit`` is called.
"""

from elude.exporter.graph.bake import bake
from elude.exporter.graph.describe import describe
from elude.exporter.graph.write_graph import emit

__all__ = ["bake", "describe", "emit"]
