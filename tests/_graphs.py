"""Emitted graphs of tiny models, for the tests that open ``model.onnx``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from torch import nn

from elude.exporter.graph import emit
from elude.exporter.graph.plain import plain_export
from elude.exporter.models.layers import Layer, find_layers
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.edits import Edit
from elude.handlers.images.preprocess import Preprocess

SOURCE = Source("tiny", "main", "tiny", "0" * 64)


@dataclass(frozen=True)
class Emitted:
    """A model, its splits, the file it was written to and inputs for it."""

    module: nn.Module
    layers: list[Layer]
    splits: list[LayerSplit]
    path: Path
    pixels: np.ndarray

    @property
    def sub_units(self) -> int:
        return sum(split.sub_units for split in self.splits)

    def edits(self, seed: int, rows: int, count: int, patches: Sequence[int] = (0,)) -> list[list[Edit]]:
        """Random edits of any layer, ``count`` a row."""
        rng = np.random.default_rng(seed)
        numbers = rng.standard_normal((rows, count, 2)).tolist()
        index = rng.integers(0, self.sub_units, (rows, count)).tolist()
        nu = rng.choice(list(patches), (rows, count)).tolist()
        return [[Edit(index[i][j], *numbers[i][j], nu[i][j]) for j in range(count)] for i in range(rows)]


def random_split(layer: Layer, seed: int, most: int = 4) -> LayerSplit:
    """A split into 1…``most`` parts with random sharing sets."""
    rng = np.random.default_rng(seed)
    parts = rng.integers(1, most + 1, layer.units)
    full = full_masks(parts)[:, None]
    masks = rng.integers(1, 2**62, (layer.units, layer.inputs)).astype(np.uint64) & full
    representatives = np.zeros((int(parts.sum()), layer.inputs), np.float32)
    return LayerSplit(
        layer.name, parts, np.where(masks == 0, full, masks), np.full(layer.units, np.nan, np.float32), representatives
    )


def preprocess(size: tuple[int, int, int]) -> Preprocess:
    return Preprocess(size, "bicubic", 1.0, "center", (0.5,) * 3, (0.5,) * 3)


def emitted(
    module: nn.Module, pattern: str, size: tuple[int, int, int], path: Path, *, batch: int = 4, **options: Any
) -> Emitted:
    """Split the layers of ``pattern`` at random and emit."""
    module = module.eval()
    layers = find_layers(module, pattern)
    splits = [random_split(layer, seed) for seed, layer in enumerate(layers)]
    emit(module, splits, path, layers=layers, input_size=size, source=SOURCE, preprocess=preprocess(size), **options)
    pixels = np.random.default_rng(7).standard_normal((batch, *size)).astype(np.float32)
    return Emitted(module, layers, splits, path, pixels)


def plain_session(
    module: nn.Module, size: tuple[int, int, int], path: Path, *, optimise: bool = False
) -> ort.InferenceSession:
    """The same model exported with nothing added."""
    model, _ = plain_export(module.eval(), size)
    ir.save(model, path)
    return raw_session(path, optimise=optimise)


def raw_session(path: Path, *, optimise: bool = False) -> ort.InferenceSession:
    """ONNX Runtime without this project's checks."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL if optimise else ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
