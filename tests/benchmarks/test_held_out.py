"""The scores of the method's benchmark, against computations word for word."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.method.harness import Family
from benchmarks.method.held_out import HeldOut, activity, cover, covered, random_pairs, scores


def held(pictures: int = 60, tokens: int = 5, inputs: int = 8, units: int = 6) -> HeldOut:
    """Random activations; the external space is one direction per class."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((pictures, tokens, inputs)).astype(np.float32)
    z = (q @ rng.standard_normal((inputs, units))).astype(np.float32)
    codes = np.arange(pictures) % 3
    return HeldOut(q, z, np.eye(3)[codes] - 1 / 3, [f"class {code}" for code in codes])


def test_own_is_the_weighted_mean_cosine_of_all_pairs() -> None:
    data, rng = held(), np.random.default_rng(1)
    features = Family(rng.standard_normal((1, 8)).astype(np.float32), np.zeros(1, np.float32))
    values = np.einsum("pti,i->pt", data.inputs, features.weight[0])
    peak, token = values.max(axis=1), values.argmax(axis=1)
    top = np.argsort(-peak)[:40]
    weight = ((peak - peak.min()) / (peak.max() - peak.min()))[top]
    z = data.outputs[top, token[top]]
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    expected = sum(weight[i] * weight[j] * (z[i] @ z[j]) for i, j in pairs) / sum(
        weight[i] * weight[j] for i, j in pairs
    )
    assert scores(features, data)["own"] == pytest.approx(expected, abs=1e-5)


def test_activity_counts_the_strongest_token_of_each_picture() -> None:
    data = held()
    features = Family(np.eye(8, dtype=np.float32)[:2], np.array([0.0, -100.0], np.float32))
    seen = activity(features, data)
    np.testing.assert_array_equal(seen.peak[:, 0], data.inputs[:, :, 0].max(axis=1))
    np.testing.assert_array_equal(seen.token[:, 0], data.inputs[:, :, 0].argmax(axis=1))
    assert seen.active[1] == 0
    assert scores(features, data)["dead"] == 1


def test_a_copy_is_not_another_distinct_feature() -> None:
    rng = np.random.default_rng(2)
    peaks = rng.random((200, 3)).astype(np.float32) ** 8  # sparse, so that different ones differ
    copies = np.concatenate([peaks, 2 * peaks, peaks + 0.001], axis=1)
    assert cover(peaks) == cover(copies) == 3


def test_a_class_is_covered_when_it_fills_half_of_a_features_strongest_pictures() -> None:
    classes = ["a"] * 8 + ["b"] * 8 + ["c"] * 4
    half_a, rest_mixed, few_c = [0, 1, 8, 16], [8, 9, 0, 16], [16, 17, 18, 19]
    assert covered(np.array([half_a]).T, classes) == 1
    assert covered(np.array([half_a, rest_mixed, few_c]).T, classes) == 3
    wide = np.array([[16, 17, 18, 19, *range(12)]]).T  # half of 16 is 8: "c" has only 4 pictures and does not count
    assert covered(wide, classes) == 1


def test_features_of_noise_are_distinct_but_not_visible() -> None:
    """What the raw count rewards, the visible one does not: features without a class in their strongest pictures."""
    data, rng = held(pictures=600), np.random.default_rng(3)
    noise = scores(Family(rng.standard_normal((6, 8)).astype(np.float32), np.full(6, -3, np.float32)), data)
    assert noise["distinct"] > 1
    classes = np.eye(3, 8, dtype=np.float32)
    q = np.zeros_like(data.inputs)
    q[:, 0, :3] = np.eye(3)[np.arange(600) % 3] * (1 + rng.random((600, 1)))
    planted = scores(Family(classes, np.zeros(3, np.float32)), HeldOut(q, data.outputs, data.external, data.classes))
    assert planted["visible"] == planted["distinct"] == 3
    assert noise["visible"] < noise["distinct"]
    assert planted["purity"] == 1


def test_random_pairs_of_balanced_classes_have_no_external_agreement() -> None:
    floor = random_pairs(held(pictures=300), 0)
    assert floor["external"] == pytest.approx(0, abs=0.01)
    assert floor["centred"] == pytest.approx(0, abs=0.05)
    assert 1 / 3 < floor["purity"] < 0.6
