"""The check itself: run the original, its twin in float32 and float64, and the file, on the same inputs, and compare.

What is checked is the file: the sub-unit weights that it computes are added up, and its outputs
    come from the session class
that serves it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elude.exporter.graph.metadata import split_sha256
from elude.exporter.graph.prepare import DTYPES
from elude.exporter.rewrite import Disentangled
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.verify.compare import OWN_ERROR, Array, Run, compare, errors, rounding, rule, scale_of
from elude.exporter.verify.divergence import first_divergence
from elude.exporter.verify.report import Comparison, Equivalence, Sums
from elude.exporter.verify.stored_sums import folds, sums_of_weights
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.output_kinds import CLASSES
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import EquivalenceError, UsageError

if TYPE_CHECKING:
    from elude.exporter.models.layers import Layer

BATCH = 4
EXACT = 2  # float64 is slow
EDITS = 8
SCALE = 100.0
SETTINGS = {"not optimised": False, "optimised": True}


@dataclass(frozen=True)
class _Case:
    """Inputs of one kind with torch's answers, name → array.

    ``original``: the untouched model's output; ``twin``: in float32; of the first ``EXACT`` images, ``own``: in the
    file's type, and ``exact``: in float64.
    """

    kind: str
    pixels: NDArray[np.float32]
    edits: list[list[Edit]]
    original: Array
    twin: dict[str, Array]
    own: dict[str, Array]
    exact: dict[str, Array]
    dtype: str

    def tolerance(self, name: str, terms: int) -> float:
        """The rule of ``elude.exporter.verify.compare`` for one output."""
        exact = self.exact[name]
        own = errors(self.own[name], exact).max()
        return rounding(terms, scale_of(self.twin[name]), self.dtype) + OWN_ERROR * (
            float(own) if np.isfinite(own) else 0.0
        )


def verify(
    original: nn.Module,
    twin: Disentangled,
    onnx_path: Path | str,
    splits: Sequence[LayerSplit],
    layers: Sequence[Layer],
    pixel_values: NDArray[np.float32],
    *,
    images: int = 32,
    seed: int = 0,
    providers: Sequence[str] = (),
) -> Equivalence:
    """Check the three claims.

    Args:
        original: the model as it was loaded.
        twin: ``elude.exporter.rewrite.graft`` of it.
        onnx_path: the emitted file.
        splits: the splits, in the order that numbers the sub-units.
        layers: the split layers, in the same order.
        pixel_values: float32 (N, 3, H, W), preprocessed real images; the first ``BATCH`` are
            compared in full, the first ``images`` by their unedited output.
        images: see above.
        seed: of the random inputs and edits.
        providers: further execution providers to compare, beside the CPU's, optimised as they are served.

    Raises:
        EquivalenceError: a claim does not hold; names it and the number, and carries the report.
        UsageError: no images, or splits and layers do not fit.
    """
    if len(pixel_values) == 0 or [split.layer for split in splits] != [layer.name for layer in layers]:
        raise UsageError(
            f"{len(pixel_values)} images and {len(splits)} splits for {len(layers)} layers cannot be verified."
        )
    path = Path(onnx_path)
    sessions = {name: GraphSession(path, optimise=optimise) for name, optimise in SETTINGS.items()}
    sessions |= {f"optimised, {name}": GraphSession(path, providers=[name]) for name in providers}
    _check_split(next(iter(sessions.values())), splits)
    terms = fan_in(original)
    dtype = next(iter(sessions.values())).metadata.get("elude.dtype", "float32")
    double = copy.deepcopy(twin).double()
    cases = _cases(original, (twin, double), splits, np.ascontiguousarray(pixel_values, np.float32), seed, dtype)
    output, kind = next((session.output_name, session.output_kind) for session in sessions.values())
    sums_terms = {layer.name: layer.inputs * layer.window for layer in layers}
    activations: dict[str, list[Comparison]] = {split.layer: [] for split in splits}
    rewrite, runtime = [], []
    for case in cases:
        rewrite.append(compare(output, case.kind, "torch", [Run(case.twin["output"], case.original, 0)], 0.0))
        for setting, session in sessions.items():
            got = _runtime(session, case, splits)
            for split in splits:
                scale = max(scale_of(case.twin[f"{split.layer}.{kind}"]) for kind in ("units", "sub_units"))
                tolerance = rounding(sums_terms[split.layer], scale, dtype)
                runs = [_merged(run, split) for run in got[f"{split.layer}.sub_units"]]
                units = [run.got for run in got[f"{split.layer}.units"]]
                pairs = [Run(run.got, unit, run.first) for run, unit in zip(runs, units, strict=True)]
                activations[split.layer].append(
                    compare(f"{split.layer}.sub_units, merged", case.kind, setting, pairs, tolerance)
                )
            if case.kind == "real":
                got["output"] += _more(session, original, pixel_values[BATCH:images])
            for name, runs in got.items():
                label = name.replace("output", output, 1) if name.startswith("output") else name
                classes = name.startswith("output") and kind == CLASSES
                row = compare(label, case.kind, setting, runs, case.tolerance(name, terms), classes=classes)
                if not row.passed:  # torch's own error was measured on a few of the images: now on all of them
                    full = _in_full(case, twin, double, pixel_values[BATCH:images] if case.kind == "real" else None)
                    row = compare(label, case.kind, setting, runs, full.tolerance(name, terms), classes=classes)
                runtime.append(row)
    weights = {
        split.layer: sums_of_weights(path, split, *_parameters(path, original, split, dtype)) for split in splits
    }
    report = Equivalence(
        tuple(Sums(split.layer, *weights[split.layer], tuple(activations[split.layer])) for split in splits),
        tuple(rewrite),
        tuple(runtime),
        rule(terms, sums_terms, dtype),
        min(len(pixel_values), max(images, BATCH)),
    )
    if not report.passed:
        report = replace(report, divergence=first_divergence(original, path, cases[0].pixels, terms, dtype))
    report.raise_if_failed()
    return report


def fan_in(module: nn.Module) -> int:
    """Products that one element of the output sums up: all fan-ins of the linear layers and convolutions of the
    model.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    return max(sum(layer.weight[0].numel() for layer in layers), 1)


def _parameters(
    path: Path, original: nn.Module, split: LayerSplit, dtype: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias of a split layer, as far as the file can hold them."""
    module = original.get_submodule(split.layer)
    assert isinstance(module, (nn.Linear, nn.Conv2d))
    bias = torch.zeros(len(split.parts)) if module.bias is None else module.bias.detach()
    weight = module.weight.detach()
    if dtype != "float32" and not folds(path, split.layer):
        weight = weight.to(DTYPES[dtype]).float()  # the file has the layer's weights in that type only
    return weight.numpy(), bias.numpy()


def _check_split(session: GraphSession, splits: Sequence[LayerSplit]) -> None:
    found, expected = session.metadata.get("elude.split_sha256"), split_sha256(splits)
    if found != expected:
        raise EquivalenceError(
            f"The file was made from another split: its elude.split_sha256 is {found}, not {expected}.",
            "Export the model again.",
            {"passed": False, "split_sha256": {"file": found, "given": expected}},
        )


def _cases(
    original: nn.Module,
    twins: tuple[Disentangled, Disentangled],
    splits: Sequence[LayerSplit],
    real: NDArray[np.float32],
    seed: int,
    dtype: str,
) -> list[_Case]:
    rng = np.random.default_rng(seed)
    real = np.resize(real, (BATCH, *real.shape[1:])) if len(real) < BATCH else real[:BATCH]
    random = rng.standard_normal((BATCH, *real.shape[1:])).astype(np.float32)
    count = sum(split.sub_units for split in splits)
    twin, double = twins
    cases = []
    kinds = {"real": real, "random": random, "scaled": real * np.float32(SCALE)}
    if dtype == "float16":
        kinds.pop("scaled")  # its numbers end at 65504
    for kind, pixels in kinds.items():
        edits = [_edits(rng, splits, count) for _ in pixels]
        with torch.inference_mode():
            plain = original(torch.from_numpy(pixels)).numpy()
        single = _torch(twin, pixels, edits)
        exact = _torch(double, pixels[:EXACT], edits[:EXACT], torch.float64)
        own = {name: value[:EXACT] for name, value in single.items()}
        if dtype != "float32":
            own = _torch(copy.deepcopy(twin).to(DTYPES[dtype]), pixels[:EXACT], edits[:EXACT], DTYPES[dtype])
        cases.append(_Case(kind, pixels, edits, plain, single, own, exact, dtype))
    return cases


def _in_full(case: _Case, twin: Disentangled, double: Disentangled, more: NDArray[np.float32] | None) -> _Case:
    """The same case with torch's own error measured on every image, and ``more`` of them by their output alone."""
    if len(case.exact["output"]) >= len(case.pixels):
        return case
    exact = _torch(double, case.pixels, case.edits, torch.float64)
    other = twin if case.dtype == "float32" else copy.deepcopy(twin).to(DTYPES[case.dtype])
    own = _torch(other, case.pixels, case.edits, DTYPES[case.dtype])
    for first in range(0, 0 if more is None else len(more), BATCH):
        assert more is not None
        part = torch.from_numpy(np.ascontiguousarray(more[first : first + BATCH], np.float32))
        with torch.inference_mode():
            exact["output"] = np.concatenate([exact["output"], double(part.double()).numpy()])
            own["output"] = np.concatenate([own["output"], other(part.to(DTYPES[case.dtype])).float().numpy()])
    return replace(case, own=own, exact=exact)


def _edits(rng: np.random.Generator, splits: Sequence[LayerSplit], count: int) -> list[Edit]:
    """One edit in every layer and random ones besides, on all tokens: which tokens are largest may hang on the last
    bit.
    """
    first = np.cumsum([0, *[split.sub_units for split in splits]])
    index = [int(rng.integers(first[i], first[i + 1])) for i in range(len(splits))]
    index += rng.integers(0, count, max(EDITS - len(index), 0)).tolist()
    return [Edit(item, float(np.float32(gain)), float(np.float32(offset))) for item, (gain, offset) in
            zip(index, rng.uniform(-2, 3, (len(index), 2)), strict=True)]  # fmt: skip


def _torch(
    twin: Disentangled, pixels: Array, edits: list[list[Edit]], dtype: torch.dtype = torch.float32
) -> dict[str, Array]:
    x = torch.from_numpy(pixels).to(dtype)
    with torch.inference_mode():
        answers = {"output": twin(x)}
        answers |= {f"{name}.units": value for name, value in twin.units(x).items()}
        answers |= {f"{name}.sub_units": value for name, value in twin.sub_units(x).items()}
        with twin.steer(edits):
            answers["output, steered"] = twin(x)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return {name: value.to(wide).numpy() for name, value in answers.items()}


def _runtime(session: GraphSession, case: _Case, splits: Sequence[LayerSplit]) -> dict[str, list[Run]]:
    """Every output at two batch sizes: all images at once, and the first alone."""
    runs: dict[str, list[Run]] = {}
    for size in (len(case.pixels), 1):
        pixels, edits = case.pixels[:size], case.edits[:size]
        result = session.run(pixels, inspect=True)
        answers = {"output": session.run(pixels).output, "output, steered": session.run(pixels, edits).output}
        for split in splits:
            answers[f"{split.layer}.units"] = result.units[split.layer]
            answers[f"{split.layer}.sub_units"] = result.sub_units[split.layer]
        for name, got in answers.items():
            runs.setdefault(name, []).append(Run(got, case.twin[name][:size], 0))
    return runs


def _more(session: GraphSession, original: nn.Module, pixels: NDArray[np.float32]) -> list[Run]:
    """Further real images by their output alone."""
    runs = []
    for first in range(0, len(pixels), BATCH):
        part = np.ascontiguousarray(pixels[first : first + BATCH], np.float32)
        with torch.inference_mode():
            runs.append(Run(session.run(part).output, original(torch.from_numpy(part)).numpy(), BATCH + first))
    return runs


def _merged(run: Run, split: LayerSplit) -> Run:
    merged = np.add.reduceat(run.got.astype(np.float64), split.first, axis=-1)
    return Run(merged, run.reference, run.first)
