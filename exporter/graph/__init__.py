"""Emit the ONNX graph: the plain export of the model, grafted so that any client can inspect and steer it (docs/graph.md)."""

from exporter.graph.bake import bake
from exporter.graph.describe import describe
from exporter.graph.plain import plain_export
from exporter.graph.write import emit

__all__ = ["bake", "describe", "emit", "plain_export"]
