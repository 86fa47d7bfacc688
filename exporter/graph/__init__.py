"""Emit the ONNX graph: the plain export of the model, grafted so that any client can inspect and steer it (docs/graph.md)."""

from exporter.graph.emit import emit
from exporter.graph.plain import plain_export

__all__ = ["emit", "plain_export"]
