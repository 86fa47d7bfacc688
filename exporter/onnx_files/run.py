"""Run any ONNX model on the CPU and fetch any of its values."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[np.float32]
_LARGEST = 1 << 30  # bytes; a serialised model ends at 2 GiB
_STATE = ort.capi.onnxruntime_pybind11_state
ONNX_ERRORS = (
    _STATE.Fail,
    _STATE.InvalidProtobuf,
    _STATE.InvalidGraph,
    _STATE.InvalidArgument,
    _STATE.NotImplemented,
    _STATE.RuntimeException,
)


class Session:
    """A model with some of its values as outputs.

    Args:
        model: any model with its weights in it; not changed.
        values: names of values to fetch.
        optimise: whether ONNX Runtime may rewrite the graph.
    """

    def __init__(self, model: onnx.ModelProto, values: Sequence[str], *, optimise: bool = True) -> None:
        self.values = list(values)
        wider = onnx.ModelProto()
        wider.CopyFrom(model)
        present = {value.name for value in wider.graph.output}
        wider.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in dict.fromkeys(values)
            if name not in present
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = len(os.sched_getaffinity(0)), 4  # errors are raised
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(wider, path, save_as_external_data=wider.ByteSize() > _LARGEST, location="model.onnx.data")
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """The values, in their order."""
        found: list[Array] = self._session.run(self.values, dict(feed))
        return found


def first_line(error: BaseException) -> str:
    """Of a message, or the kind of error where there is none."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line[:300].rstrip(".")
