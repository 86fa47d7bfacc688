"""Clustering: planted directions are found, and every degenerate input has a defined answer."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from elude.exporter.splitting.contributions import contributions, normalise
from elude.exporter.splitting.hdbscan import Clusters, cluster_unit, representatives
from elude.handlers.errors import UsageError


def planted(rows: int, inputs: int, count: int, noise: float = 0.02, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of unlike lengths along ``count`` orthogonal directions, and which direction each has."""
    rng = np.random.default_rng(seed)
    truth = np.arange(rows) % count
    directions = np.linalg.qr(rng.standard_normal((inputs, count)))[0].T
    vectors = directions[truth] + noise * rng.standard_normal((rows, inputs)) / np.sqrt(inputs)
    return (vectors * rng.gamma(2, 10, (rows, 1))).astype(np.float32), truth


@pytest.mark.parametrize("clusterer", ["hdbscan", "projected"])
def test_planted_directions_are_found_whatever_their_length(clusterer: str) -> None:
    vectors, truth = planted(240, 200, 4, noise=0.3)
    clusters = cluster_unit(vectors, min_cluster_size=20, clusterer=clusterer)
    assert clusters.count == 4
    found = clusters.labels >= 0
    assert found.mean() > 0.7
    assert adjusted_rand_score(truth[found], clusters.labels[found]) == 1.0
    assert ((clusters.probabilities > 0) == found).all()
    assert clusters.probabilities.max() <= 1


@pytest.mark.parametrize("clusterer", ["hdbscan", "projected"])
def test_clustering_is_deterministic_and_leaves_its_input_alone(clusterer: str) -> None:
    vectors, _ = planted(200, 100, 3, noise=1.5)
    before = vectors.copy()
    first = cluster_unit(vectors, min_cluster_size=10, clusterer=clusterer, seed=3)
    second = cluster_unit(vectors, min_cluster_size=10, clusterer=clusterer, seed=3)
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_rows_of_zeros_are_noise_and_nothing_is_nan() -> None:
    vectors, _ = planted(90, 10, 3)
    vectors[::3] = 0  # one planted direction vanishes
    clusters = cluster_unit(vectors, min_cluster_size=10)
    assert clusters.count == 2
    assert (clusters.labels[::3] == -1).all()
    assert np.isfinite(clusters.probabilities).all()
    assert np.isfinite(representatives(vectors, clusters)).all()


@pytest.mark.parametrize(
    "vectors", [np.zeros((30, 4)), np.zeros((0, 4)), np.ones((3, 4))], ids=["zeros", "none", "too few"]
)
def test_nothing_to_cluster_is_all_noise(vectors: np.ndarray) -> None:
    clusters = cluster_unit(vectors.astype(np.float32), min_cluster_size=5)
    assert clusters.count == 0
    assert representatives(vectors.astype(np.float32), clusters).shape == (0, 4)


def test_equal_vectors_give_finite_probabilities() -> None:
    vectors = np.repeat(np.eye(3, 8, dtype=np.float32), 20, axis=0)
    clusters = cluster_unit(vectors, min_cluster_size=5)
    assert np.isfinite(clusters.probabilities).all()
    assert clusters.count in (0, 3)


def test_of_more_than_sixty_four_clusters_the_largest_stay() -> None:
    sizes = np.full(70, 4)
    sizes[[10, 60]] = 8
    truth = np.repeat(np.arange(70), sizes)
    rng = np.random.default_rng(0)
    vectors = (np.eye(70)[truth] + 0.01 * rng.standard_normal((len(truth), 70))).astype(np.float32)
    clusters = cluster_unit(vectors, min_cluster_size=3)
    assert clusters.count == 64
    assert set(np.unique(clusters.labels)) == set(range(-1, 64))
    assert (clusters.labels[np.isin(truth, [10, 60])] >= 0).all()
    assert (clusters.probabilities[clusters.labels == -1] == 0).all()


def test_representatives_are_weighted_mean_directions() -> None:
    vectors = np.array([[2, 0], [0, 5], [0, 7], [9, 9]], np.float32)
    clusters = Clusters(np.array([0, 0, 1, -1]), np.array([1, 0.5, 0.2, 0], np.float32))
    np.testing.assert_allclose(
        representatives(vectors, clusters), normalise(np.array([[1, 0.5], [0, 1]], np.float32)), rtol=1e-6
    )


@pytest.mark.parametrize("clusterer", ["hdbscan", "projected"])
def test_vectors_that_are_computed_when_read_give_what_an_array_gives(clusterer: str) -> None:
    rows = 5_000 if clusterer == "projected" else 2_500
    vectors, _ = planted(rows, 40, 3)
    vectors[::50] = 0
    order = np.random.default_rng(1).permutation(rows)
    weight = np.random.default_rng(2).uniform(0.5, 2, (1, 40, 1)).astype(np.float32)
    computed = contributions((vectors / weight[0, :, 0])[:, :, None], weight, 0, order)
    array = computed[:]
    lazily, at_once = (cluster_unit(rows, min_cluster_size=250, clusterer=clusterer) for rows in (computed, array))
    assert at_once.count == 3
    np.testing.assert_array_equal(lazily.labels, at_once.labels)
    np.testing.assert_array_equal(lazily.probabilities, at_once.probabilities)
    means = np.stack(
        [
            (normalise(array) * at_once.probabilities[:, None])[at_once.labels == number].sum(axis=0, dtype=np.float64)
            for number in range(3)
        ]
    )
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(representatives(computed, lazily), means, atol=1e-6)
    assert (lazily.labels[order % 50 == 0] == -1).all()


def test_an_unknown_clusterer_is_refused() -> None:
    with pytest.raises(UsageError, match="kmeans"):
        cluster_unit(np.ones((9, 2), np.float32), min_cluster_size=2, clusterer="kmeans")


@pytest.mark.parametrize("rows", [4_000, 4_001, 9_000])
def test_many_rows_are_clustered_by_a_sample_and_give_the_same_clusters(rows: int) -> None:
    vectors, truth = planted(rows, 40, 4)
    clusters = cluster_unit(vectors, min_cluster_size=rows // 20, clusterer="projected")
    assert clusters.count == 4
    member = clusters.labels >= 0
    assert member.mean() > 0.8
    assert adjusted_rand_score(truth[member], clusters.labels[member]) == 1


def test_a_row_that_is_far_from_all_clusters_of_the_sample_is_noise() -> None:
    vectors, _ = planted(6_000, 40, 2)
    rng = np.random.default_rng(0)
    alone = rng.standard_normal((600, 40)).astype(np.float32)
    clusters = cluster_unit(np.concatenate([vectors, alone]), min_cluster_size=300, clusterer="projected")
    assert clusters.count == 2
    assert (clusters.labels[6_000:] == -1).mean() > 0.95
    assert (clusters.labels[:6_000] >= 0).mean() > 0.8
