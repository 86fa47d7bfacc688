"""The whole split of a unit and a layer on planted concepts, against hand-worked and independent computations."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from elude.exporter.models.layers import find_layers
from elude.exporter.splitting.contributions import contributions, layer_bias, layer_weight, top_rows
from elude.exporter.splitting.fair_control import random_control
from elude.exporter.splitting.hdbscan import Clusters, cluster_unit, representatives
from elude.exporter.splitting.margin import MARGIN_RULES, MARGINS, winning_masks
from elude.exporter.splitting.split_layer import split_layer
from elude.exporter.splitting.split_unit import SplitSettings, separation, split_unit
from elude.handlers.errors import UsageError

SETTINGS = SplitSettings(top_k=600, min_cluster_size=50)


@dataclass(frozen=True)
class Probed:
    """As much of a probe as splitting reads."""

    q: np.ndarray
    z: np.ndarray


def planted(module: nn.Module, instances: int = 600, concepts: int = 3, seed: int = 0) -> tuple[Probed, np.ndarray]:
    """A probe whose instances each show one of three concepts on its own quarter of the inputs, and which."""
    rng = np.random.default_rng(seed)
    layer = find_layers(nn.Sequential(module), "0")[0]
    width = layer.groups * layer.inputs
    truth = rng.integers(0, concepts, instances)
    q = 0.3 * rng.random((instances, width, layer.window), np.float32)
    for concept in range(concepts):
        q[np.ix_(truth == concept, np.arange(width) % 4 == concept)] += 1
    weight = layer.module.weight.detach().numpy().reshape(layer.groups, -1, layer.inputs, layer.window)
    grouped = q.reshape(instances, layer.groups, layer.inputs, layer.window)
    z = np.einsum("ngiw,guiw->ngu", grouped, weight).reshape(instances, -1) + layer_bias(layer)
    return Probed(q, z.astype(np.float32)), truth


def positive(module: nn.Module) -> nn.Module:
    """The module with weights that let every concept drive every unit."""
    torch.manual_seed(0)
    with torch.no_grad():
        module.weight.uniform_(0.5, 1)
    return module


@pytest.mark.parametrize("rule", MARGIN_RULES)
@pytest.mark.parametrize("clusterer", ["hdbscan", "projected"])
@pytest.mark.parametrize("module", [nn.Linear(80, 4), nn.Conv2d(32, 4, 3, groups=2, bias=False)], ids=str)
def test_planted_concepts_become_sub_units(module: nn.Module, clusterer: str, rule: str) -> None:
    probe, truth = planted(positive(module))
    layer = find_layers(nn.Sequential(module), "0")[0]
    split, _ = split_layer(layer, probe, SplitSettings(600, 50, rule, clusterer))
    assert split.layer == "0"
    assert split.parts.tolist() == [3] * 4
    for unit in range(4):
        rows = np.arange(600)
        shares = split.shares()[split.first[unit] : split.first[unit] + 3]
        activations = contributions(probe.q, layer_weight(layer), unit, rows)[:] @ shares.T
        assert len(set(activations.argmax(axis=1)[truth == 0])) == 1  # each concept has its own sub-unit
        assert len(set(activations.argmax(axis=1))) == 3


@pytest.mark.parametrize("rows", [40, 5_000])
def test_separation_equals_plain_loops_in_float64(rows: int) -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((rows, 12)).astype(np.float32)
    labels = rng.integers(-1, 4, rows)
    clusters = Clusters(labels, (labels >= 0).astype(np.float32))
    masks = winning_masks(representatives(vectors, clusters), MARGINS, "smallest")
    expected = []
    for mask in masks:
        ratios = []
        for c in range(4):
            shares = np.array([(int(m) >> c & 1) / int(m).bit_count() for m in mask])
            z = np.maximum(vectors.astype(np.float64) @ shares + 0.3 * shares.mean(), 0)
            own, other = z[labels == c].mean(), z[(labels != c) & (labels >= 0)].mean()
            ratios.append((own - other) / (own + other) if own + other else 0)
        expected.append(np.mean(ratios))
    np.testing.assert_allclose(separation(vectors, clusters, 0.3, masks), expected, rtol=0, atol=1e-6)


def test_the_margin_found_is_the_smallest_best() -> None:
    module = positive(nn.Linear(40, 1))
    layer = find_layers(nn.Sequential(module), "0")[0]
    probe, _ = planted(module)
    vectors = contributions(probe.q, layer_weight(layer), 0, top_rows(probe.z[:, 0], 600))[:]
    bias = float(module.bias.item())
    split = split_unit(vectors, bias, SETTINGS)
    clusters = cluster_unit(vectors, min_cluster_size=50)
    scores = separation(vectors, clusters, bias, winning_masks(representatives(vectors, clusters), MARGINS, "literal"))
    assert split.rho == MARGINS[np.flatnonzero(scores == scores.max())[0]]


def test_never_firing_sub_units_score_zero() -> None:
    clusters = Clusters(np.array([0, 0, 1, 1]), np.ones(4, np.float32))
    masks = np.array([[0b01, 0b10]], np.uint64)
    assert separation(-np.ones((4, 2), np.float32), clusters, -1.0, masks).tolist() == [0.0]
    fires = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    assert separation(fires, clusters, 0.0, masks).tolist() == [1.0]
    assert separation(fires[::-1], clusters, 0.0, masks).tolist() == [-1.0]


def test_units_without_two_clusters_stay_whole() -> None:
    module = positive(nn.Linear(40, 3))
    layer = find_layers(nn.Sequential(module), "0")[0]
    probe, _ = planted(module, concepts=1)
    split, _ = split_layer(layer, probe, SplitSettings(600, 290))
    assert split.expansion_factor == 1
    assert np.isnan(split.rho).all()
    assert (split.masks == 1).all()
    assert (split.representatives == 0).all()
    assert split_unit(np.zeros((300, 4), np.float32), 1.0, SETTINGS) is None


def test_a_unit_that_no_margin_tells_apart_stays_whole() -> None:
    """Two clusters that differ in sign only: |r| is the same, so every input is shared by all."""
    rng = np.random.default_rng(0)
    one = 1 + 0.1 * rng.standard_normal((150, 6))
    vectors = np.concatenate([one, -one]).astype(np.float32)
    assert cluster_unit(vectors, min_cluster_size=80).count == 2
    assert split_unit(vectors, 0.0, SplitSettings(300, 80)) is None


def test_depthwise_units_stay_whole() -> None:
    module = positive(nn.Conv2d(4, 4, 3, groups=4))
    probe, _ = planted(module)
    split, _ = split_layer(find_layers(nn.Sequential(module), "0")[0], probe, SETTINGS)
    assert split.parts.tolist() == [1] * 4


def test_the_result_does_not_depend_on_workers_and_progress_counts_up() -> None:
    module = positive(nn.Linear(40, 6))
    layer = find_layers(nn.Sequential(module), "0")[0]
    probe, _ = planted(module)
    calls: list[tuple[int, int]] = []
    one, _ = split_layer(layer, probe, SETTINGS, lambda done, total: calls.append((done, total)))
    three, _ = split_layer(layer, probe, SETTINGS, workers=1)
    assert calls == [(i, 6) for i in range(1, 7)]
    for name in ("parts", "masks", "rho", "representatives"):
        assert getattr(one, name).tobytes() == getattr(three, name).tobytes()


def test_the_random_control_keeps_parts_and_histograms() -> None:
    module = positive(nn.Linear(40, 6))
    probe, _ = planted(module)
    split, _ = split_layer(find_layers(nn.Sequential(module), "0")[0], probe, SETTINGS)
    control, again, other = random_control(split, 0), random_control(split, 0), random_control(split, 1)
    np.testing.assert_array_equal(control.parts, split.parts)
    np.testing.assert_array_equal(np.sort(control.masks, axis=1), np.sort(split.masks, axis=1))
    np.testing.assert_array_equal(np.sort(control.representatives, axis=1), np.sort(split.representatives, axis=1))
    assert not np.array_equal(control.masks, split.masks)
    assert not np.array_equal(control.masks, other.masks)
    np.testing.assert_array_equal(control.masks, again.masks)
    np.testing.assert_allclose(control.omega(), split.omega(), atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"top_k": 10, "min_cluster_size": 1}, "min_cluster_size"),
        ({"top_k": 10, "min_cluster_size": 6}, "top_k"),
        ({"top_k": 10, "min_cluster_size": 2, "margin_rule": "gap"}, "gap"),
        ({"top_k": 10, "min_cluster_size": 2, "clusterer": "kmeans"}, "kmeans"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        SplitSettings(**settings)


def test_probes_that_do_not_fit_are_refused() -> None:
    module = positive(nn.Linear(40, 2))
    layer = find_layers(nn.Sequential(module), "0")[0]
    probe, _ = planted(module)
    with pytest.raises(UsageError, match="do not fit"):
        split_layer(layer, Probed(probe.q[:, 1:], probe.z), SETTINGS)
    broken = probe.z.copy()
    broken[0] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        split_layer(layer, Probed(probe.q, broken), SETTINGS)
    broken = probe.q.copy()
    broken[:] = np.inf
    with pytest.raises(UsageError, match="NaN"):
        split_layer(layer, Probed(broken, probe.z), SETTINGS)
