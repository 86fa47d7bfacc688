"""Read an ONNX file of someone else's making and give it the shape that a graft needs: one input ``pixel_values`` with
an open batch, one output with one row per image, at least opset 18, no function of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import inliner, version_converter
from onnx_ir.passes.common import RemoveUnusedNodesPass

from elude.exporter.graph.ops import Ops
from elude.exporter.graph.site import OPSET
from elude.exporter.models.options import ONNX, ModelOptions, check_output_shape, output_meaning
from elude.exporter.onnx_files.layers import OnnxLayer, find_layers
from elude.exporter.onnx_files.run import ONNX_ERRORS, Array, Session, first_line
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.external_data import private_model
from elude.handlers.bundle.output_kinds import CLASSES, OUTPUT_NAMES
from elude.handlers.errors import BundleError, UnsupportedLayerError, UsageError
from elude.handlers.images.preprocess import Preprocess

PIXELS = "pixel_values"
_IR_VERSION = 8  # the first that knows opset 18
_RESERVED = {PIXELS, "inspect", "steer_sub_unit", "steer_gain", "steer_offset", "steer_patches", *OUTPUT_NAMES.values()}
_QUANTISED = ("DequantizeLinear", "QuantizeLinear", "QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class OnnxFile:
    """A file that can be split.

    Attributes:
        given: as it was read, for comparison.
        ready: the same model in the shape that a graft needs.
        input_name: of ``given``.
        output_name: of ``given``: an output or any other value; ``pool`` is what ``ready`` does to it.
        fixed_batch: how many images ``given`` takes at a time, None for any number.
        preprocess: what it expects of an image.
        labels: names of its outputs, None where they have none.
        source: where it came from; the hash is of the file.
        kind: what its outputs mean.
    """

    given: onnx.ModelProto
    ready: onnx.ModelProto
    input_name: str
    output_name: str
    pool: str | None
    fixed_batch: int | None
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    source: Source
    kind: str

    @property
    def parameters(self) -> int:
        """Numbers in its initialisers of floating-point type."""
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
        return sum(
            int(np.prod(tensor.dims, dtype=np.int64))
            for tensor in self.given.graph.initializer
            if tensor.data_type in floats
        )

    def graph(self) -> tuple[ir.Model, list[OnnxLayer]]:
        """A graph of its own, and its layers: every call gives the same."""
        model = ir.from_proto(self.ready)
        return model, find_layers(model.graph)[0]

    def answers(self, pixels: Array, *, optimise: bool = False, model: onnx.ModelProto | None = None) -> Array:
        """Output (N, outputs) of ``given``, or of another model with the same interface."""
        return self.through(self.session(optimise=optimise, model=model), pixels)

    def session(self, *, optimise: bool = False, model: onnx.ModelProto | None = None) -> Session:
        """``given``, or another model with the same interface, to run ``through``."""
        return Session(model or self.given, [self.output_name], optimise=optimise)

    def through(self, session: Session, pixels: Array) -> Array:
        """Output (N, outputs) of any number of images; a file for a fixed number takes some twice."""
        size = self.fixed_batch or len(pixels)
        whole = np.resize(pixels, (-(-len(pixels) // size) * size, *pixels.shape[1:]))
        parts = [session.run({self.input_name: whole[i : i + size]})[0] for i in range(0, len(whole), size)]
        return pooled(np.concatenate(parts)[: len(pixels)], self.pool)


def pooled(values: Array, pool: str | None) -> Array:
    """(N, outputs) of an output with places."""
    if pool == "first":
        return np.ascontiguousarray(values[:, 0])
    if pool == "mean":
        values = _mean(values)
    return values.reshape(len(values), -1)


def _mean(values: Array) -> Array:
    """Over the places, by the operator that computes it in the graph, so with the same rounding."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    axes = onnx.numpy_helper.from_array(np.array([2, 3] if values.ndim == 4 else [1]), "axes")
    ends = [helper.make_tensor_value_info(name, number, None) for name in ("x", "mean")]
    node = helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0)
    graph = helper.make_graph([node], "mean", ends[:1], ends[1:], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    return Session(model, ["mean"], optimise=False).run({"x": values})[0]


def read_onnx(path: Path, options: ModelOptions, *, dynamic_size: bool = False) -> OnnxFile:
    """Read a file and settle what its output means.

    Args:
        path: the file; weights outside it must lie in plain files beside it.
        options: preprocessing is needed, and labels or kind.
        dynamic_size: leave height and width open where the file does.

    Raises:
        BundleError: it cannot be read, or takes weights from elsewhere.
        UsageError: something must be said, and says what.
        UnsupportedLayerError: it cannot be run, or not on several images at once.
    """
    given, sha256 = _load(path)
    image = _image_input(given, path.name)
    preprocess = _preprocess(options, image, path.name)
    output = _chosen_output(given, options.output, path.name)
    name = options.address(ONNX + path.name)
    batch = image.type.tensor_type.shape.dim[0].dim_value or None
    source = Source(name, "", f"ONNX opset {_opset(given)}", sha256)
    noise = np.random.default_rng(0).standard_normal((2, *preprocess.input_size)).astype(np.float32)
    file = OnnxFile(given, given, image.name, output, options.pool, batch, preprocess, None, source, CLASSES)
    returned = _try_out(file, noise, path.name)
    check_output_shape(returned.shape, options, path.name)
    rows = pooled(returned, options.pool)
    kind, labels = output_meaning(options, rows.shape[1], path.name)
    ready = _ready(file, kind, returned.ndim, dynamic_size, path.name)
    result = OnnxFile(given, ready, image.name, output, options.pool, batch, preprocess, labels, source, kind)
    _check_batch(result, noise, path.name)
    return result


def _load(path: Path) -> tuple[onnx.ModelProto, str]:
    with private_model(path) as (copy, sha256):
        try:
            model = onnx.load(copy)
        except Exception as error:  # protobuf's own errors have no common base
            raise BundleError(f"{path.name} cannot be read: {first_line(error)}.", "Give an ONNX file.") from error
    if not model.graph.node:
        raise BundleError(f"{path.name} holds no graph.", "Give an ONNX file.")
    if any(entry.key.startswith("elude.") for entry in model.metadata_props):
        raise UsageError(f"{path.name} was written by elude already.", "Give the original file.")
    return model, sha256


def _image_input(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    """The one input that is not an initialiser, if it is a batch of images with the channels first."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        listed = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(f"{name} has the inputs {listed}.", "A file with one input, the images, can be split.")
    tensor = inputs[0].type.tensor_type
    shape = [axis.dim_value or axis.dim_param or "?" for axis in tensor.shape.dim]
    text = f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} ({', '.join(map(str, shape))})"
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(shape) != 4:
        raise UnsupportedLayerError(
            f"{name}: the input {inputs[0].name!r} is {text}.", "It must be float (batch, channels, height, width)."
        )
    if shape[3] in (1, 3) and shape[1] not in (1, 3):
        raise UnsupportedLayerError(
            f"{name}: the input {inputs[0].name!r} is {text}, with the channels last.",
            "Convert the file to channels first, e.g. with tf2onnx --inputs-as-nchw.",
        )
    return inputs[0]


def _preprocess(options: ModelOptions, image: onnx.ValueInfoProto, name: str) -> Preprocess:
    shape = [axis.dim_value or None for axis in image.type.tensor_type.shape.dim][1:]
    size = "×".join("any" if side is None else str(side) for side in shape)
    if options.preprocess is None:
        raise UsageError(
            f"{name} takes images of {size}, but not how they are prepared: the file does not say it.",
            "Give --preprocess FILE.json (in Python preprocess): size, resizing, mean and std, as in a bundle's "
            "preprocess.json.",
        )
    wanted = options.preprocess.input_size
    if any(side is not None and side != given for side, given in zip(shape, wanted, strict=True)):
        raise UsageError(
            f"{name} takes images of {size}, the preprocessing makes {'×'.join(map(str, wanted))}.",
            "Give the file's size as input_size.",
        )
    return options.preprocess


def _chosen_output(model: onnx.ModelProto, wanted: str | None, name: str) -> str:
    """An output by name or position, or any other value by name."""
    outputs: list[str] = [value.name for value in model.graph.output]
    if wanted is None:
        if len(outputs) == 1:
            return outputs[0]
        raise UsageError(f"{name} has the outputs {', '.join(outputs)}.", "Choose one by --output.")
    if wanted.isdecimal() and int(wanted) < len(outputs):
        return outputs[int(wanted)]
    if wanted in outputs or any(wanted in node.output for node in model.graph.node):
        return wanted
    raise UsageError(f"{name} has no output {wanted!r}.", f"Choose one of {', '.join(outputs)}, or another value.")


def _try_out(file: OnnxFile, noise: Array, name: str) -> Array:
    size = file.fixed_batch or len(noise)
    try:
        session = Session(file.given, [file.output_name], optimise=False)
        returned = session.run({file.input_name: np.resize(noise, (size, *noise.shape[1:]))})[0]
    except ONNX_ERRORS as error:
        raise UnsupportedLayerError(
            f"{name} cannot be run: {first_line(error)}.", "Check that ONNX Runtime runs it on images of that size."
        ) from error
    if returned.ndim == 0 or len(returned) != size or returned.dtype != np.float32:
        raise UsageError(
            f"{file.output_name} of {name} is {returned.dtype} {returned.shape} for {size} images.",
            "It must be float32 with one row per image.",
        )
    return returned


def _ready(file: OnnxFile, kind: str, axes: int, dynamic_size: bool, name: str) -> onnx.ModelProto:
    """The model in the shape that a graft needs; it computes the same, which the export's check proves."""
    try:
        proto = inliner.inline_local_functions(file.given) if file.given.functions else file.given
        if _opset(proto) < OPSET:
            proto = version_converter.convert_version(proto, OPSET)
    except Exception as error:  # the converter raises what its C++ parts raise
        raise UnsupportedLayerError(
            f"{name} of opset {_opset(file.given)} cannot be brought to opset {OPSET}: {first_line(error)}.",
            "Export it again with opset 18 or later.",
        ) from error
    model = ir.from_proto(proto)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    graph = model.graph
    output = next(value for value in _values(graph) if value.name == file.output_name)
    for value in _values(graph):
        if value.name in _RESERVED or "elude" in str(value.name):
            value.name = f"given/{value.name}"
    pixels = next(value for value in graph.inputs if not value.is_initializer())
    graph.inputs[:] = [pixels]  # initialisers that are inputs, too, become constants
    pixels.name = PIXELS
    channels, *fixed = file.preprocess.input_size
    sides: list[int | str] = [*fixed]
    if dynamic_size and pixels.shape is not None:
        opened = zip(("height", "width"), list(pixels.shape)[2:], fixed, strict=True)
        sides = [side if isinstance(given, int) else axis for axis, given, side in opened]
    pixels.shape = ir.Shape(["batch", channels, *sides])
    graph.outputs[:] = [_pooled(graph, output, file.pool, axes)]
    graph.outputs[0].name = OUTPUT_NAMES[kind]
    graph.outputs[0].shape, graph.outputs[0].type = None, ir.TensorType(ir.DataType.FLOAT)
    return _with_shapes(model)


def _pooled(graph: ir.Graph, output: ir.Value, pool: str | None, axes: int) -> ir.Value:
    """The output as (batch, outputs), as ``pooled`` computes it."""
    ops = Ops(graph, "given/pool")
    if pool == "first":
        result = ops("Gather", output, ops.constant(np.asarray(0)), axis=1)
    elif pool == "mean":
        result = ops("ReduceMean", output, ops.constant([2, 3] if axes == 4 else [1]), keepdims=0)
    elif axes == 1:
        result = ops("Unsqueeze", output, ops.constant([1]))
    elif output.is_graph_input() or output.is_initializer() or output in graph.outputs or not list(output.uses()):
        result = output
    else:
        result = ops("Identity", output)
    graph.extend(ops.nodes)
    return result


def _with_shapes(model: ir.Model) -> onnx.ModelProto:
    """Only what the output needs, with the shapes that follow from the open batch."""
    graph = model.graph
    RemoveUnusedNodesPass()(model)
    for value in _values(graph):
        if value is not graph.inputs[0] and value is not graph.outputs[0] and value.producer() is not None:
            value.shape = None
    graph.sort()
    proto = ir.to_proto(model)
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (ValueError, onnx.shape_inference.InferenceError):  # above 2 GiB, or an operator that it does not know
        return proto


def _values(graph: ir.Graph) -> list[ir.Value]:
    produced = [value for node in graph.all_nodes() for value in node.outputs]
    return list(dict.fromkeys([*graph.inputs, *graph.initializers.values(), *produced]))


def _check_batch(file: OnnxFile, noise: Array, name: str) -> None:
    """Two images at once must answer as each alone: a graph may have its batch size written into it."""
    output = OUTPUT_NAMES[file.kind]
    try:
        session = Session(file.ready, [output], optimise=False)
        both = session.run({PIXELS: noise})[0]
        alone = np.concatenate([session.run({PIXELS: noise[i : i + 1]})[0] for i in range(2)])
    except ONNX_ERRORS as error:
        raise UnsupportedLayerError(
            f"{name} takes {file.fixed_batch or 'some'} images at a time and cannot be opened to any number: "
            f"{first_line(error)}.",
            "Export it again with a dynamic batch axis.",
        ) from error
    scale = float(np.abs(alone).max())
    if both.shape != alone.shape or not np.allclose(both, alone, rtol=1e-3, atol=1e-4 * scale):
        raise UnsupportedLayerError(
            f"{name} answers otherwise to two images at once than to each alone.",
            "Export it again with a dynamic batch axis.",
        )


def _opset(model: onnx.ModelProto) -> int:
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def quantised(model: onnx.ModelProto) -> bool:
    """Whether a file computes with quantised numbers."""
    return any(node.op_type in _QUANTISED for node in model.graph.node)
