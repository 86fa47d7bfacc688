"""A model folder for NVIDIA Triton: the same graph with all inputs required, and its ``config.pbtxt``.

Triton wants every input in every request and reads inputs that have a default as weights. Nothing but
the defaults is taken out: a request that gives them gets the same answer, bit for bit.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import onnx_ir as ir

from elude.exporter.graph.bake import open_source
from elude.exporter.graph.write_graph import EXTERNAL_ABOVE, save
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.graph_metadata import INPUTS, read_layers
from elude.handlers.errors import UsageError

_KINDS = {"FLOAT": "TYPE_FP32", "INT64": "TYPE_INT64", "BOOL": "TYPE_BOOL"}


def triton_model(
    source: Bundle | Path | str, out: Path | str | None = None, *, external_above: int = EXTERNAL_ABOVE
) -> Path:
    """Write a model for Triton's ``onnxruntime`` backend.

    A request without edits gives one edit of sub-unit -1, which edits nothing: all four inputs of shape (1, 1).

    Args:
        source: a bundle, its folder, or a ``model.onnx``.
        out: a new folder in Triton's model repository; its name is the model's.
        external_above: bytes of weights above which they are stored beside the file.

    Returns:
        the folder, which holds ``config.pbtxt`` and ``1/model.onnx``.

    Raises:
        UsageError: ``out`` exists, is missing, or cannot be a model's name.
        BundleError: the file is not one of this project's.
    """
    with open_source(source, out) as (_, path, folder):
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", folder.name):
            raise UsageError(f"{folder.name!r} cannot name a model.", "Use letters, digits, '_', '-' and '.'.")
        model = ir.load(path)
        read_layers(model.metadata_props, path.name)
        for value in model.graph.inputs:
            if value.name in INPUTS and value.name in model.graph.initializers:
                model.graph.initializers.pop(str(value.name))
                value.const_value = None
        _write(model, folder, external_above)
    return folder


def _write(model: ir.Model, folder: Path, external_above: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        (made / "1").mkdir(parents=True)
        save(model, made / "1" / "model.onnx", external_above)
        (made / "config.pbtxt").write_text(_config(model.graph, folder.name), encoding="utf-8")
        made.rename(folder)


def _config(graph: ir.Graph, name: str) -> str:
    inputs = "".join(_tensor("input", value) for value in graph.inputs)
    outputs = "".join(_tensor("output", value) for value in graph.outputs)
    # max_batch_size 0: shapes below are whole, as rows of edits need not be as many as images.
    return f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 0\n{inputs}{outputs}'


def _tensor(kind: str, value: ir.Value) -> str:
    assert value.shape is not None
    assert value.dtype is not None
    sizes = [str(size) if isinstance(size, int) else "-1" for size in value.shape]
    # Triton has no scalars: one number is reshaped to none.
    shape = f"dims: [ {', '.join(sizes)} ]" if sizes else "dims: [ 1 ]\n  reshape { shape: [ ] }"
    return f'{kind} {{\n  name: "{value.name}"\n  data_type: {_KINDS[value.dtype.name]}\n  {shape}\n}}\n'
