"""What the open inference protocol (KServe V2) says of a server and a model."""

from __future__ import annotations

from typing import Any

from elude.handlers.service import Service


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": "elude", "version": "1", "extensions": []}


def model_metadata(service: Service, version: str) -> dict[str, Any]:
    """Tensors that ``infer`` takes and gives; -1 stands for any number of images, of classes as many as asked for."""
    if service.labels is None:
        outputs = [{"name": "answer", "datatype": "BYTES", "shape": [-1]}]
    else:
        outputs = [
            {"name": "labels", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, -1]},
        ]
    return {
        "name": service.model,
        "versions": [version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
    }
