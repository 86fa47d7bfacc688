"""Check a split file against the file it was made from, by ONNX Runtime alone.

Three claims: (a) the sub-units in the file sum to their units, weights bit for bit; (b) without edits, not optimised,
it answers bit for bit as the given file; (c) with edits it answers as the given file whose weights were edited
instead, W + sum of (g - 1) w_s and b + sum of ((g - 1) b_s + o), image by image, and its units are the given file's.

The rule of ``elude.exporter.verify.compare`` needs the model's own rounding error. Here it is what ONNX Runtime's own
optimisation changes in the given file's answers to the same inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from elude.exporter.models.tokens import to_tokens
from elude.exporter.onnx_files.collect import Watched
from elude.exporter.onnx_files.layers import OnnxLayer
from elude.exporter.onnx_files.read_file import OnnxFile
from elude.exporter.onnx_files.run import Array, Session
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.weights import sub_unit_bias, sub_unit_weights
from elude.exporter.verify.compare import OWN_ERROR, Run, compare, errors, rounding, rule, scale_of
from elude.exporter.verify.report import ONNX_CLAIMS, Comparison, Equivalence, Sums
from elude.exporter.verify.stored_sums import sums_of_weights
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.output_kinds import CLASSES, OUTPUT_NAMES
from elude.handlers.bundle.session import GraphSession

BATCH = 4
EDITS = 8
SETTINGS = {"not optimised": False, "optimised": True}
SCALE = 100.0
_FORMULA = (
    "factor * roundoff * sqrt(terms) * scale + own_error_factor * max|given file optimised - not optimised|; rewrite: 0"
)


@dataclass(frozen=True)
class _Case:
    """Inputs of one kind with the answers of the given file: not optimised and optimised, and with edited weights."""

    kind: str
    pixels: Array
    edits: list[list[Edit]]
    plain: tuple[Array, Array]
    steered: tuple[Array, Array]
    units: dict[str, Array]


def verify_onnx(
    file: OnnxFile,
    path: Path,
    splits: Sequence[LayerSplit],
    layers: Sequence[OnnxLayer],
    pixel_values: Array,
    *,
    seed: int = 0,
) -> Equivalence:
    """Check the three claims.

    Args:
        file: the given file.
        path: the split one.
        splits: in the order that numbers the sub-units; ``layers``: in the same order, of ``file.graph()``.
        pixel_values: float32 (N, channels, H, W), preprocessed real images; the first ``BATCH`` in full, the others
            by their unedited output.
        seed: of the random inputs and edits.

    Raises:
        EquivalenceError: a claim does not hold; names it and the number, and carries the report.
    """
    terms = sum(layer.weights[0].size for layer in file.graph()[1])
    sessions = {name: GraphSession(path, optimise=optimise) for name, optimise in SETTINGS.items()}
    output, classes = OUTPUT_NAMES[file.kind], file.kind == CLASSES
    rewrite: list[Comparison] = []
    runtime: list[Comparison] = []
    merged: dict[str, list[Comparison]] = {layer.name: [] for layer in layers}
    for case in _cases(file, splits, layers, pixel_values, seed):
        for setting, session in sessions.items():
            plain, steered = session.run(case.pixels).output, session.run(case.pixels, case.edits).output
            if setting == "not optimised":
                got = plain
                if file.fixed_batch == 1:  # sums over another number of rows may round otherwise
                    got = np.concatenate([session.run(case.pixels[i : i + 1]).output for i in range(len(case.pixels))])
                rewrite.append(compare(output, case.kind, setting, [Run(got, case.plain[0], 0)], 0.0))
            for label, got, wanted in ((output, plain, case.plain), (f"{output}, steered", steered, case.steered)):
                allowed = _tolerance(terms, wanted)
                runtime.append(compare(label, case.kind, setting, [Run(got, wanted[0], 0)], allowed, classes=classes))
            seen = session.run(case.pixels, inspect=True)
            for layer, split in zip(layers, splits, strict=True):
                name, own = layer.name, layer.inputs * layer.window
                units, parts = seen.units[name], seen.sub_units[name]
                wanted_units = case.units[name]
                allowed = rounding(terms, scale_of(wanted_units))
                runtime.append(compare(f"{name}.units", case.kind, setting, [Run(units, wanted_units, 0)], allowed))
                summed = np.add.reduceat(parts.astype(np.float64), split.first, axis=-1)
                allowed = rounding(own, max(scale_of(units), scale_of(parts)))
                merged[name].append(
                    compare(f"{name}.sub_units, merged", case.kind, setting, [Run(summed, units, 0)], allowed)
                )
    if len(pixel_values) > BATCH:
        rest = np.ascontiguousarray(pixel_values[BATCH:])
        runs = [Run(sessions["not optimised"].run(rest[i : i + 1]).output, file.answers(rest[i : i + 1]), BATCH + i)
                for i in range(len(rest))]  # fmt: skip
        rewrite.append(compare(output, "real", "not optimised, alone", runs, 0.0))
    sums = tuple(
        Sums(layer.name, *sums_of_weights(path, split, layer.weights, _bias(layer)), tuple(merged[layer.name]))
        for layer, split in zip(layers, splits, strict=True)
    )
    facts = rule(terms, {layer.name: layer.inputs * layer.window for layer in layers}) | {"formula": _FORMULA}
    report = Equivalence(sums, tuple(rewrite), tuple(runtime), facts, len(pixel_values), claims=ONNX_CLAIMS)
    report.raise_if_failed()
    return report


def _tolerance(terms: int, answers: tuple[Array, Array]) -> float:
    own = float(errors(answers[1], answers[0]).max())
    return rounding(terms, scale_of(answers[0])) + OWN_ERROR * (own if np.isfinite(own) else 0.0)


def _bias(layer: OnnxLayer) -> Array:
    return np.zeros(layer.units, np.float32) if layer.biases is None else layer.biases


def _cases(
    file: OnnxFile, splits: Sequence[LayerSplit], layers: Sequence[OnnxLayer], real: Array, seed: int
) -> list[_Case]:
    rng = np.random.default_rng(seed)
    real = np.resize(real, (BATCH, *real.shape[1:])) if len(real) < BATCH else real[:BATCH]
    real = np.ascontiguousarray(real)
    kinds = {"real": real, "random": rng.standard_normal(real.shape).astype(np.float32)}
    kinds["scaled"] = real * np.float32(SCALE)
    watched = Watched(file, layers)
    cases = []
    for kind, pixels in kinds.items():
        edits = [_edits(rng, splits) for _ in pixels]
        plain = file.answers(pixels), file.answers(pixels, optimise=True)
        steered = _edited_answers(file, splits, layers, pixels, edits)
        calls = watched(pixels)
        units = {layer.name: to_tokens(calls[layer.name][1], layer, len(pixels)) for layer in layers}
        cases.append(_Case(kind, pixels, edits, plain, steered, units))
    return cases


def _edits(rng: np.random.Generator, splits: Sequence[LayerSplit]) -> list[Edit]:
    """One edit in every layer and random ones besides."""
    first = np.cumsum([0, *[split.sub_units for split in splits]])
    index = [int(rng.integers(first[i], first[i + 1])) for i in range(len(splits))]
    index += rng.integers(0, first[-1], max(EDITS - len(index), 0)).tolist()
    return [Edit(item, float(np.float32(gain)), float(np.float32(offset))) for item, (gain, offset) in
            zip(index, rng.uniform(-2, 3, (len(index), 2)), strict=True)]  # fmt: skip


def _edited_answers(
    file: OnnxFile,
    splits: Sequence[LayerSplit],
    layers: Sequence[OnnxLayer],
    pixels: Array,
    edits: Sequence[Sequence[Edit]],
) -> tuple[Array, Array]:
    """Answers of the given model with each image's edits in its weights instead; not optimised and optimised."""
    rows: dict[bool, list[Array]] = {False: [], True: []}
    for image, row in zip(pixels, edits, strict=True):
        model = weight_edited(file, splits, layers, row)
        for optimise, answers in rows.items():
            session = Session(model, [OUTPUT_NAMES[file.kind]], optimise=optimise)
            answers.append(session.run({"pixel_values": image[None]})[0])
    return np.concatenate(rows[False]), np.concatenate(rows[True])


def weight_edited(
    file: OnnxFile, splits: Sequence[LayerSplit], layers: Sequence[OnnxLayer], edits: Sequence[Edit]
) -> onnx.ModelProto:
    """The model, without any graft, with edits in its weights and biases, summed up in float64."""
    model = onnx.ModelProto()
    model.CopyFrom(file.ready)
    first = 0
    for split, layer in zip(splits, layers, strict=True):
        weight, bias = layer.weights.astype(np.float64), _bias(layer).astype(np.float64)
        own_weights, own_bias = sub_unit_weights(layer.weights, split), sub_unit_bias(layer.biases, split)
        for edit in edits:
            row = edit.index - first
            if 0 <= row < split.sub_units:
                unit = int(split.parent[row])
                weight[unit] += (edit.gain - 1) * own_weights[row].astype(np.float64)
                bias[unit] += (edit.gain - 1) * float(own_bias[row]) + edit.offset
        _replace(model, layer, weight.astype(np.float32), bias.astype(np.float32))
        first += split.sub_units
    return model


def _replace(model: onnx.ModelProto, layer: OnnxLayer, weight: Array, bias: Array) -> None:
    """Give the layer's node weights of its own, and the bias to an addition behind it."""
    z, product = str(layer.site.z.name), str(layer.site.product.outputs[0].name)
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if product in node.output)
    node = nodes[place]
    stored = weight if node.op_type == "Conv" or _transposed(node) else weight.T
    new = onnx.NodeProto()
    new.CopyFrom(node)
    del new.input[2:]
    new.input[1], new.output[0] = f"edited/{z}/weight", f"edited/{z}/product"
    shape = (-1, 1, 1) if node.op_type == "Conv" else (-1,)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(stored), new.input[1]),
            numpy_helper.from_array(bias.reshape(shape), f"edited/{z}/bias"),
        ]
    )
    add = onnx.helper.make_node("Add", [new.output[0], f"edited/{z}/bias"], [z])
    end = next(i for i, item in enumerate(nodes) if z in item.output)
    kept = [item for i, item in enumerate(nodes) if i not in (place, end)]
    kept[place:place] = [new, add]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _transposed(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
