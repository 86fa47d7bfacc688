"""The three forms of a real bundle measure the same, the graph through the session that serves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from elude.exporter.graph import emit
from elude.exporter.models.layers import find_layers
from elude.exporter.models.load import load_model
from elude.exporter.splitting.layer_split import LayerSplit, full_masks
from elude.exporter.splitting.split_file import save_splits
from elude.handlers.bundle.bundle import Bundle, LayerInfo, Source, write_bundle
from elude.handlers.bundle.edits import Edit
from elude.handlers.errors import EvaluationError, UsageError
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.bundle_subject import open_bundle
from elude.quality.subjects.onnx_subject import OnnxSubject
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.open_suite import embedded_suite
from elude.quality.suites.suite import Suite

MODEL, LAYER = "embedded", "blocks.5.mlp.fc2"


def random_split(units: int, inputs: int) -> LayerSplit:
    rng = np.random.default_rng(0)
    parts = rng.integers(1, 4, units)
    masks = rng.integers(1, full_masks(parts)[:, None], (units, inputs), dtype=np.uint64, endpoint=True)
    rho = np.where(parts > 1, 0.5, np.nan).astype(np.float32)
    return LayerSplit(LAYER, parts, masks, rho, np.zeros((int(parts.sum()), inputs), np.float32))


def write(path: Path, source: Source | None = None) -> Bundle:
    loaded = load_model(MODEL)
    layers = find_layers(loaded.module, LAYER)
    split = random_split(layers[0].units, layers[0].inputs)
    info = LayerInfo(LAYER, layers[0].kind, layers[0].units, layers[0].inputs, tuple(split.parts.tolist()), 0)
    source = source or loaded.source
    parameters = sum(p.numel() for p in loaded.module.parameters())
    with write_bundle(path, source=source, layers=[info], parameters=parameters, versions={}) as folder:
        emit(
            loaded.module,
            [split],
            folder / "model.onnx",
            layers=layers,
            input_size=loaded.preprocess.input_size,
            source=source,
            preprocess=loaded.preprocess,
        )
        save_splits([split], folder / "disentangled.safetensors")
        (folder / "preprocess.json").write_text(json.dumps(loaded.preprocess.to_json()))
        (folder / "labels.json").write_text(json.dumps(list(loaded.labels or ())))
        for name in ("catalogue.sqlite", "equivalence.json"):
            (folder / name).write_bytes(b"{}")
    return Bundle.open(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write(tmp_path_factory.mktemp("bundles") / "bundle")


def small_suite(count: int = 60) -> Suite:
    images = cast(EncodedSet, embedded_suite().images)
    return Suite("embedded-part", EncodedSet(images.source.limited(count)), ("contrast",), (1, 5), dark_background=True)


def test_all_nine_dimensions_of_three_forms(bundle: Bundle) -> None:
    report = evaluate(bundle, small_suite(), budget=40, resamples=10)
    assert report.subject == {"kind": "bundle", "model": MODEL, "artefact_sha256": bundle.artefact_sha256}
    assert len(report.dimensions) == 9
    assert report.lossless is not None
    assert report.lossless["disentangled"] == report.lossless["original"]  # bit-identical
    for name, value in report.lossless["original"].items():
        # ONNX Runtime rounds otherwise: continuous values to 1e-4, none of these few images changes its class
        assert report.lossless["served"][name] == pytest.approx(value, abs=1e-4), name
    assert report.dimensions["params_m"].factors["parameters"] == bundle.manifest.parameters


def test_a_steered_graph_is_another_subject(bundle: Bundle) -> None:
    forms = open_bundle(bundle)
    edits = [Edit.scale(index, 40.0) for index in range(20)]
    steered = OnnxSubject(bundle.path("model.onnx"), forms.served.preprocess, labels=forms.served.labels, edits=edits)
    pixels = np.random.default_rng(0).random((3, 3, 28, 28), np.float32)
    assert np.abs(steered.outputs(pixels) - forms.served.outputs(pixels)).max() > 1e-3
    plain = torch.from_numpy(forms.original.outputs(pixels))
    assert torch.allclose(plain, torch.from_numpy(forms.served.outputs(pixels)), atol=1e-4)


def test_other_weights_than_the_bundle_names(tmp_path: Path) -> None:
    real = load_model(MODEL).source
    other = write(tmp_path / "other", Source(real.model, real.revision, real.architecture, "0" * 64))
    with pytest.raises(EvaluationError, match="different weights"):
        open_bundle(other)


def test_a_bundle_made_from_code_is_measured_when_the_model_is_given(tmp_path: Path) -> None:
    loaded = load_model(MODEL)
    bundle = write(tmp_path / "b", Source("my_models:make", "", "", loaded.source.weights_sha256))
    with pytest.raises(UsageError, match="my_models:make"):
        evaluate(bundle, small_suite(20), dimensions=["accuracy"])
    report = evaluate(bundle, small_suite(20), dimensions=["accuracy"], resamples=0, model=loaded)
    assert report.lossless is not None
    assert len({form["accuracy"] for form in report.lossless.values()}) == 1
