"""What the open inference protocol (KServe V2) and TensorFlow Serving say of a server and a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elude.handlers.service import Service
from elude.handlers.web.models import Served, Table


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": "elude", "version": "1", "extensions": []}


def model_metadata(service: Service, versions: Sequence[str]) -> dict[str, Any]:
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
        "versions": list(versions),
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
    }


def model_status(table: Table, asked: Sequence[Served]) -> dict[str, Any]:
    """Versions with their states, their labels, and why a newer one is not served, if that is so."""
    model = asked[0].service.model
    problems = {served.version: served.health.problem() for served in asked}
    labels = {name: served.version for name, served in table.labels.get(model, {}).items() if served in asked}
    body: dict[str, Any] = {
        "name": model,
        "ready": not any(problems.values()),
        "model_version_status": [_state(version, problem) for version, problem in problems.items()],
    }
    if labels:
        body["labels"] = labels
    if model in table.problems:
        body["reload"] = table.problems[model]
    return body


def _state(version: str, problem: str) -> dict[str, Any]:
    status = {"error_code": "FAILED_PRECONDITION" if problem else "OK", "error_message": problem}
    return {"version": version, "state": "UNLOADING" if problem else "AVAILABLE", "status": status}
