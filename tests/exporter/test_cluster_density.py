"""The project's own HDBSCAN against scikit-learn's, scipy's single linkage, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import cdist, squareform
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from elude.exporter.splitting.hdbscan_leaves import leaf_clusters
from elude.exporter.splitting.hdbscan_reach import Reach, reach


def blobs(seed: int, dtype: type = np.float64) -> tuple[np.ndarray, int]:
    """Points around a few centres, more or less apart, and a cluster size."""
    rng = np.random.default_rng(seed)
    rows, dimensions, centres = rng.integers(40, 400), rng.integers(2, 20), rng.integers(1, 9)
    middle = 3 * rng.standard_normal((centres, dimensions))
    points = middle[rng.integers(0, centres, rows)] + rng.uniform(0.1, 1.5) * rng.standard_normal((rows, dimensions))
    return points.astype(dtype), int(rng.integers(2, 25))


def mutual_reachability(points: np.ndarray, min_samples: int) -> np.ndarray:
    distances = cdist(points.astype(np.float64), points.astype(np.float64))
    core = np.sort(distances, axis=1)[:, min_samples - 1]
    mutual = np.maximum(distances, np.maximum(core[:, None], core))
    np.fill_diagonal(mutual, 0)
    return mutual


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(8))
def test_steps_are_the_levels_of_single_linkage(seed: int, dtype: type) -> None:
    points, min_samples = blobs(seed, dtype)
    got = reach(points, min_samples)
    assert sorted(got.order) == list(range(len(points)))
    levels = linkage(squareform(mutual_reachability(points, min_samples), checks=False), "single")[:, 2]
    np.testing.assert_allclose(np.sort(got.steps), levels, rtol=1e-4 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_two_points_meet_at_the_largest_step_between_them(seed: int) -> None:
    points, min_samples = blobs(100 + seed)
    got = reach(points, min_samples)
    mutual = mutual_reachability(points, min_samples)
    meeting = mutual.copy()
    for middle in range(len(points)):  # the smallest largest step over all paths, by Floyd and Warshall
        np.minimum(meeting, np.maximum(meeting[:, [middle]], meeting[[middle]]), out=meeting)
    for first, second in np.random.default_rng(seed).integers(0, len(points), (50, 2)):
        low, high = sorted((first, second))
        if low != high:
            assert got.steps[low:high].max() == pytest.approx(meeting[got.order[low], got.order[high]], rel=1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_leaves_are_those_of_scikit_learn(seed: int) -> None:
    """With core distances of 0 no two steps are equal, so there is one right answer, to the last label and
    probability.
    """
    points, smallest = blobs(200 + seed)
    library = HDBSCAN(
        min_cluster_size=smallest, min_samples=1, algorithm="brute", cluster_selection_method="leaf", copy=True
    ).fit(points)
    labels, probabilities = leaf_clusters(reach(points, 1), smallest)
    assert labels.max() == library.labels_.max()
    np.testing.assert_array_equal(labels == -1, library.labels_ == -1)
    assert adjusted_rand_score(labels, library.labels_) == 1
    np.testing.assert_allclose(probabilities, library.probabilities_, rtol=1e-7, atol=1e-7)


def test_leaves_agree_with_scikit_learn_where_core_distances_tie() -> None:
    """A point between two clusters may join either at its core distance, so libraries differ on it: rarely, and on
    few points.
    """
    agreement, same_count = [], []
    for seed in range(40):
        points, smallest = blobs(300 + seed, np.float32 if seed % 2 else np.float64)
        library = HDBSCAN(min_cluster_size=smallest, algorithm="brute", cluster_selection_method="leaf", copy=True).fit(
            points
        )
        labels, _ = leaf_clusters(reach(points, smallest), smallest)
        agreement.append(adjusted_rand_score(labels, library.labels_))
        same_count.append(labels.max() == library.labels_.max())
    assert np.mean(same_count) > 0.9
    assert np.median(agreement) == 1
    assert np.mean(agreement) > 0.98


def test_hand_worked_leaves() -> None:
    """Three groups in a line of joining: the first two split at step 5, together they split from the third at step
    9.
    """
    steps = np.array([1, 2, 5, 1, 1, 9, 4, 2], float)
    labels, probabilities = leaf_clusters(Reach(np.arange(9), steps), 3)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # Of 0: point 2 falls out at step 2, then 0 and 1 are too few, also at 2. Of 2: all three end at step 4.
    np.testing.assert_allclose(probabilities, 1)
    labels, probabilities = leaf_clusters(Reach(np.arange(9), steps), 2)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(probabilities, [1, 1, 0.5, 1, 1, 1, 0.5, 1, 1])


def test_a_set_that_never_splits_has_no_leaf() -> None:
    labels, probabilities = leaf_clusters(Reach(np.arange(6), np.array([1.0, 2, 3, 4, 5])), 3)
    assert (labels == -1).all()
    assert (probabilities == 0).all()


def test_order_of_points_is_followed() -> None:
    order = np.array([5, 0, 3, 1, 4, 2])
    labels, _ = leaf_clusters(Reach(order, np.array([1.0, 1, 7, 1, 1])), 3)
    assert labels[order].tolist() == [0, 0, 0, 1, 1, 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=0, max_size=30), st.integers(2, 6))
def test_equal_and_zero_steps_have_a_defined_answer(steps: list[float], smallest: int) -> None:
    labels, probabilities = leaf_clusters(Reach(np.arange(len(steps) + 1), np.array(steps)), smallest)
    sizes = np.bincount(labels[labels >= 0])
    assert len(sizes) != 1  # a split makes two
    assert (sizes >= smallest).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_equal_points_join_at_distance_zero() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    got = reach(points, 4)
    assert sorted(got.steps.round(5)) == [0] * 27 + [1.41421] * 2
