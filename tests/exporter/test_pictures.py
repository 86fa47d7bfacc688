"""Clusters by contribution and picture, the layer's choice among them, and the fair control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from elude.exporter.models.layers import find_layers
from elude.exporter.splitting.contributions import layer_bias, top_rows_of_pictures
from elude.exporter.splitting.fair_control import shuffled
from elude.exporter.splitting.hdbscan import Clusters, keep_clusters, representatives
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.pictures import coherence, picture_space
from elude.exporter.splitting.selection import keep_best
from elude.exporter.splitting.split_layer import split_layer
from elude.exporter.splitting.split_unit import SplitSettings

KINDS, PICTURES, TOKENS, INPUTS = 3, 150, 2, 80


@dataclass(frozen=True)
class Probed:
    """As much of a probe as splitting reads."""

    q: NDArray[np.float32]
    z: NDArray[np.float32]
    image: NDArray[np.int64]
    pictures: NDArray[np.float32]


def planted(seed: int = 0) -> tuple[nn.Linear, Probed, NDArray[np.int64]]:
    """A layer whose units fire for three kinds of pictures, each by inputs of its own; and each picture's kind."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(0)
    module = nn.Linear(INPUTS, 4)
    with torch.no_grad():
        module.weight.uniform_(0.5, 1)
    kind = np.arange(PICTURES) % KINDS
    q = 0.3 * rng.random((PICTURES, TOKENS, INPUTS))
    for k in range(KINDS):
        q[np.ix_(kind == k, range(TOKENS), np.arange(INPUTS) % 4 == k)] += 1
    flat = q.reshape(-1, INPUTS).astype(np.float32)
    z = flat @ module.weight.detach().numpy().T + layer_bias(find_layers(nn.Sequential(module), "0")[0])
    image = np.repeat(np.arange(PICTURES), TOKENS)
    probe = Probed(flat[..., None], z.astype(np.float32), image, q.mean(axis=1).astype(np.float32))
    return module, probe, kind


def split(probe: Probed, module: nn.Module, **changes: float) -> tuple[LayerSplit, LayerSplit]:
    chosen = SplitSettings(300, 20, "near-ties", "pictures", **changes)  # type: ignore[arg-type]
    return split_layer(find_layers(nn.Sequential(module), "0")[0], probe, chosen)  # type: ignore[arg-type]


def gap(layer: LayerSplit, probe: Probed, module: nn.Linear, kind: NDArray[np.int64]) -> float:
    """Mean over sub-units: activation on the kind it answers to most, less the mean on the others, over the sum."""
    weight = module.weight.detach().numpy()
    rows = layer.shares() * weight[layer.parent]
    activation = np.maximum(probe.q[:, :, 0] @ rows.T, 0)
    means = np.stack([activation[kind[probe.image] == k].mean(axis=0) for k in range(KINDS)])
    others = (means.sum(axis=0) - means.max(axis=0)) / (KINDS - 1)
    return float(((means.max(axis=0) - others) / (means.max(axis=0) + others)).mean())


def test_each_kind_of_picture_gets_a_sub_unit_and_the_control_does_not() -> None:
    module, probe, kind = planted()
    made, control = split(probe, module)
    assert made.parts.tolist() == [KINDS] * 4
    assert control.parts.tolist() == made.parts.tolist()
    assert np.isnan(made.rho).all()
    assert gap(made, probe, module, kind) > 0.5
    assert gap(control, probe, module, kind) < gap(made, probe, module, kind) - 0.1


def test_the_shares_of_split_and_control_sum_to_one() -> None:
    module, probe, _ = planted()
    for layer in split(probe, module):
        sums = np.add.reduceat(layer.shares(), layer.first, axis=0)
        np.testing.assert_allclose(sums, 1, atol=1e-12)


def test_the_order_of_the_pictures_changes_nothing() -> None:
    module, probe, _ = planted()
    order = np.random.default_rng(1).permutation(PICTURES)
    rows = (order[:, None] * TOKENS + np.arange(TOKENS)).ravel()
    renamed = Probed(probe.q[rows], probe.z[rows], probe.image, probe.pictures[order])
    one, other = split(probe, module)[0], split(renamed, module)[0]
    assert one.parts.tolist() == other.parts.tolist()
    for unit in range(4):
        assert sorted(column_sets(one, unit)) == sorted(column_sets(other, unit))


def column_sets(layer: LayerSplit, unit: int) -> list[tuple[int, ...]]:
    """The inputs of each sub-unit of a unit."""
    rows = range(layer.first[unit], layer.first[unit] + layer.parts[unit])
    return [tuple(np.flatnonzero(layer.members[row])) for row in rows]


def test_the_expansion_bounds_the_layer() -> None:
    module, probe, _ = planted()
    assert split(probe, module, expansion=2.0)[0].parts.tolist() == [2] * 4
    assert split(probe, module, expansion=2.5)[0].sub_units == 10


def test_a_control_that_keeps_the_probabilities_knows_the_clusters() -> None:
    """Noise has probability 0, so what still counts are members of the true clusters: the old control cheats."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 20)).astype(np.float32) * 0.1
    vectors[:40, 0] += 3  # the cluster; all else is noise
    clusters = Clusters(np.where(np.arange(400) < 40, 0, -1), np.where(np.arange(400) < 40, 1, 0).astype(np.float32))
    cheating = Clusters(np.where(rng.permutation(400) < 200, 0, -1), clusters.probabilities)
    fair = shuffled(clusters, [0, 1])
    true = representatives(vectors, clusters)[0]
    assert representatives(vectors, cheating)[0] @ true > 0.95
    assert abs(representatives(vectors, fair)[0] @ true) < 0.9
    assert sorted(zip(fair.labels, fair.probabilities, strict=True)) == sorted(
        zip(clusters.labels, clusters.probabilities, strict=True)
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_coherence_is_the_mean_cosine_of_pairs_shrunk_by_two(count: int, seed: int) -> None:
    places = np.random.default_rng(seed).standard_normal((count, 5))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    pairs = [places[i] @ places[j] for i in range(count) for j in range(i)]
    expected = np.mean(pairs) * count / (count + 2)
    twice = np.concatenate([places, places[:1]]).astype(np.float32)  # a picture that comes twice counts once
    numbers = np.append(np.arange(count), 0)
    assert coherence(twice, numbers) == pytest.approx(expected, abs=1e-5)
    assert coherence(twice[:1], numbers[:1]) == 0


def test_the_picture_space_is_whitened_and_independent_of_the_order() -> None:
    rng = np.random.default_rng(0)
    means = (rng.standard_normal((40, 6)) * [100, 1, 1, 1, 1, 0.1]).astype(np.float32)
    places = picture_space(means)
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1, atol=1e-6)
    cosines = places @ places.T
    order = rng.permutation(40)
    np.testing.assert_allclose(
        picture_space(means[order]) @ picture_space(means[order]).T, cosines[np.ix_(order, order)], atol=1e-6
    )
    stretched = picture_space(means * np.float32(3) * np.array([1, 7, 1, 1, 1, 1], np.float32))
    np.testing.assert_allclose(stretched @ stretched.T, cosines, atol=1e-3)  # whitening forgets the scales
    assert picture_space(means[:1]).shape == (1, 0)


def test_places_of_very_many_pictures_are_those_of_a_fit_on_a_part_of_them() -> None:
    rng = np.random.default_rng(0)
    means = (rng.standard_normal((9_000, 6)) * [9, 5, 3, 1, 1, 1]).astype(np.float32)
    places = picture_space(means)
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 1, atol=1e-6)
    centred = means.astype(np.float64) - means.mean(axis=0)
    plain = np.linalg.svd(centred, full_matrices=False)[0]
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    rows = rng.choice(len(means), 300, replace=False)
    np.testing.assert_allclose(places[rows] @ places[rows].T, plain[rows] @ plain[rows].T, atol=0.05)
    order = rng.permutation(len(means))
    np.testing.assert_array_equal(picture_space(means[order]), places[order])


def test_each_unit_keeps_two_and_the_best_of_the_rest_share_the_budget() -> None:
    scores = [np.array([0.1, 0.2, 0.3]), np.array([0.9]), np.array([0.5, 0.6, 0.4, 0.7])]
    kept = [rows.tolist() for rows in keep_best(scores, 7)]
    assert kept == [[1, 2], [], [0, 1, 2, 3]]
    assert [rows.tolist() for rows in keep_best(scores, 0)] == [[1, 2], [], [1, 3]]  # two of each in any case
    assert [rows.tolist() for rows in keep_best(scores, 99)] == [[0, 1, 2], [], [0, 1, 2, 3]]


def test_a_picture_gives_at_most_so_many_instances() -> None:
    activations = np.array([9, 8, 7, 1, 2, 6], np.float32)
    image = np.array([0, 0, 0, 1, 1, 2])
    assert top_rows_of_pictures(activations, 4, image, 2).tolist() == [0, 1, 4, 5]
    assert top_rows_of_pictures(activations, 4, image, 1).tolist() == [0, 4, 5]
    assert top_rows_of_pictures(activations, 4, image, 3).tolist() == [0, 1, 2, 5]


def test_dropped_clusters_become_noise() -> None:
    clusters = Clusters(np.array([0, 1, -1, 2, 1]), np.array([1, 0.5, 0, 1, 1], np.float32))
    kept = keep_clusters(clusters, np.array([1]))
    assert kept.labels.tolist() == [-1, 0, -1, -1, 0]
    assert kept.probabilities.tolist() == [0, 0.5, 0, 0, 1]
    assert keep_clusters(clusters, np.empty(0, np.int64)).count == 0
