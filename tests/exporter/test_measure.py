"""The streamed MS-Scores against all pairs in float64, computed from whole outputs; what is left out is counted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from _images import noise, plain
from _models import Convolutions, TinyBlocks, TwoConcepts
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from elude.exporter.images import ImageSource
from elude.exporter.models.layers import Layer, find_layers
from elude.exporter.scoring.activity import UNITS, scan
from elude.exporter.scoring.measures import RANDOM, SUB_UNITS, ms_scores, purity
from elude.exporter.scoring.ms_score import ms_score, random_pairs
from elude.exporter.splitting.layer_split import LayerSplit, whole
from elude.handlers.errors import EvaluationError


def pairs(weights: NDArray[np.float64], embeddings: NDArray[np.float64]) -> float:
    """MS-Score by its definition."""
    top = bottom = 0.0
    for i in range(len(weights)):
        for j in range(len(weights)):
            if i != j:
                top += weights[i] * weights[j] * float(embeddings[i] @ embeddings[j])
                bottom += weights[i] * weights[j]
    return top / bottom if bottom else math.nan


def unit_length(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(
    arrays(np.float64, 6, elements=st.floats(0.01, 1)),
    arrays(np.float64, (6, 3), elements=st.floats(-1, 1).map(lambda value: round(value, 3) or 0.5)),
)
def test_closed_form_equals_all_pairs(weights: NDArray[np.float64], rows: NDArray[np.float64]) -> None:
    embeddings = unit_length(rows)
    score = ms_score(weights, embeddings)
    assert score == pytest.approx(pairs(weights, embeddings), abs=1e-9)
    assert -1 - 1e-9 <= score <= 1 + 1e-9


def test_known_scores() -> None:
    same, opposite = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert ms_score(np.ones(2), same) == pytest.approx(1)
    assert ms_score(np.array([1.0, 0.3]), opposite) == pytest.approx(-1)
    assert ms_score(np.ones(3), np.eye(3)) == pytest.approx(0)
    assert math.isnan(ms_score(np.array([1.0, 0.0]), same))  # one image alone has nobody to be alike to


def halves(layer: Layer) -> LayerSplit:
    """Even units split into two, by even and odd inputs; odd units whole."""
    parts = np.where(np.arange(layer.units) % 2 == 0, 2, 1)
    masks = np.where(parts[:, None] == 2, np.where(np.arange(layer.inputs) % 2 == 0, 1, 2)[None], 1).astype(np.uint64)
    rho = np.where(parts == 2, 0.5, np.nan).astype(np.float32)
    return LayerSplit(layer.name, parts, masks, rho, np.zeros((parts.sum(), layer.inputs), np.float32))


def brute(
    model: torch.nn.Module, layer: Layer, split: LayerSplit, images: ImageSource, *, side: int, top: int
) -> dict[str, NDArray[np.float64]]:
    """All scores from whole outputs in float64: family → (ms or centred, features)."""
    model = model.double()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = layer.module.register_forward_hook(lambda _module, args, z: seen.append((args[0], z)))
    x = torch.from_numpy(next(images.batches(plain(side), len(images)))[1]).double()
    with torch.no_grad():
        model(x)
    handle.remove()
    q, z = seen[0]
    shares = torch.from_numpy(split.shares())
    weight, bias = (
        layer.module.weight.detach(),
        layer.module.bias.detach()[split.parent] * torch.from_numpy(split.omega()),
    )
    if layer.kind == "conv":
        z = z.flatten(2).transpose(1, 2)
        conv = layer.module
        sub = torch.nn.functional.conv2d(
            q, weight[split.parent] * shares[:, :, None, None], bias, conv.stride, conv.padding
        )
        sub = sub.flatten(2).transpose(1, 2)
    else:
        sub = q @ (weight[split.parent] * shares).T + bias
    model.float()
    centre = z.mean((0, 1)).numpy()
    out = {}
    for name, values in (("units", z), ("sub_units", sub)):
        scores = np.full((2, values.shape[2]), np.nan)
        for feature in range(values.shape[2]):
            peak, token = (part.numpy() for part in values[:, :, feature].max(1))
            if peak.max() <= 0:
                continue
            order = np.argsort(-peak)[:top]
            weights = ((peak - peak.min()) / (peak.max() - peak.min()))[order]
            rows = z.numpy()[order, token[order]]
            scores[:, feature] = pairs(weights, unit_length(rows)), pairs(weights, unit_length(rows - centre))
        out[name] = scores
    return out


@pytest.mark.parametrize(
    ("model", "name"), [(TinyBlocks(), "blocks.1.mlp.fc2"), (Convolutions(), "stem"), (Convolutions(), "pointwise")]
)
def test_streamed_scores_equal_all_pairs_of_whole_outputs(model: torch.nn.Module, name: str, tmp_path: Path) -> None:
    images = noise(tmp_path, 23, 12)
    layers = find_layers(model, name)
    split = halves(layers[0])
    steps: list[tuple[int, int]] = []
    measures = ms_scores(
        model,
        layers,
        {name: split},
        {name: split},
        images=images,
        preprocess=plain(12),
        held_out=True,
        top=7,
        batch_size=5,
        progress=lambda *step: steps.append(step),
    )
    expected = brute(model, layers[0], split, images, side=12, top=7)
    scores = measures.layers[name]
    for family in (UNITS, SUB_UNITS):
        np.testing.assert_allclose(scores[family].ms, expected[family][0], atol=1e-5)
        np.testing.assert_allclose(scores[family].centred, expected[family][1], atol=1e-5)
    np.testing.assert_array_equal(scores[RANDOM].ms, scores[SUB_UNITS].ms)  # the same split was given for both
    assert np.array_equal(scores[UNITS].of_split_unit, split.parts == 2)
    assert np.array_equal(scores[SUB_UNITS].of_split_unit, (split.parts == 2)[split.parent])
    assert steps[0] == (5, 46)
    assert steps[-1] == (46, 46)


def test_the_floor_is_the_mean_cosine_of_random_pairs_of_images(tmp_path: Path) -> None:
    model, images = TinyBlocks(), noise(tmp_path, 23, 12)
    layers = find_layers(model, "blocks.1.mlp.fc2")
    split, outputs = halves(layers[0]), []
    handle = layers[0].module.register_forward_hook(lambda _module, _args, z: outputs.append(z.double()))
    with torch.no_grad():
        model(torch.from_numpy(next(images.batches(plain(12), len(images)))[1]))
    handle.remove()
    z = outputs[0].numpy()
    rows = z[np.arange(23), random_pairs(23, z.shape[1]).token]
    name = layers[0].name
    measures = ms_scores(
        model, layers, {name: split}, {name: split}, images=images, preprocess=plain(12), held_out=True, batch_size=5
    )
    raw, centred = measures.pairs[name]
    assert raw == pytest.approx(pairs(np.ones(23), unit_length(rows)), abs=1e-5)
    assert centred == pytest.approx(pairs(np.ones(23), unit_length(rows - z.mean((0, 1)))), abs=1e-5)
    assert measures.to_json()["layers"][name]["random_pairs"]["ms"] == pytest.approx(raw, abs=1e-6)


def test_dead_units_are_left_out_and_counted(tmp_path: Path) -> None:
    model = TwoConcepts()
    with torch.no_grad():
        model.mix.weight[1] = 0
        model.mix.bias[1] = -1
    images = noise(tmp_path, 9, 4)
    layers = find_layers(model, "mix")
    split = {"mix": whole("mix", 2, 3)}
    scores = ms_scores(model, layers, split, split, images=images, preprocess=plain(4), held_out=False, batch_size=4)
    units = scores.layers["mix"]["units"]
    assert units.left_out == 1
    assert np.isnan(units.ms[1])
    assert np.isnan(units.purity[1])
    assert np.isfinite(units.ms[0])
    text = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert text["tokens"] == {"mix": 4}
    assert (text["images"], text["held_out"], text["top"]) == (9, False, 9)
    assert text["layers"]["mix"]["units"]["each"]["ms"][1] is None
    assert text["layers"]["mix"]["units"]["ms_mean"] == pytest.approx(units.ms[0], abs=1e-6)
    assert text["layers"]["mix"]["units"]["ms_mean_of_split_units"] is None  # none was split


def test_activity_counts_every_token(tmp_path: Path) -> None:
    model = TwoConcepts()
    images = noise(tmp_path, 7, 4)
    layers = find_layers(model, "mix")
    activity = scan(model, layers, {}, images, plain(4), batch_size=3)["mix"][UNITS]
    x = torch.from_numpy(next(images.batches(plain(4), 7))[1])
    z = model.mix(torch.nn.functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2)).detach().double().numpy()
    np.testing.assert_allclose(activity.peak, z.max(1), atol=1e-6)
    assert np.array_equal(activity.token, z.argmax(1))
    np.testing.assert_allclose(activity.mean, z.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(activity.active, (z > 0).mean((0, 1)))
    assert activity.tokens == 4
    assert np.array_equal(activity.strongest(3), np.argsort(-z.max(1), axis=0)[:3])


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = TwoConcepts()
    with torch.no_grad():
        model.mix.bias[0] = torch.inf
    with pytest.raises(EvaluationError, match="mix is NaN or infinite"):
        scan(model, find_layers(model, "mix"), {}, noise(tmp_path, 3, 4), plain(4))


def test_purity_is_the_part_of_the_most_frequent_class() -> None:
    labels = ["a", "a", "b", None, "b", "b"]
    images = np.array([[0, 2], [1, 4], [2, 5], [3, 0]])
    np.testing.assert_allclose(purity(images, labels), [2 / 4, 3 / 4])
    assert np.isnan(purity(images, [None] * 6)).all()
