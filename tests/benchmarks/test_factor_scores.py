"""The factor benchmark's scores on features whose factors are planted, and on noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

from benchmarks.factors import scores


def grid(copies: int = 8) -> np.ndarray:
    """int64 (pictures, 2): all pairs of 4 and 3 levels."""
    return np.tile(np.stack(np.meshgrid(range(4), range(3), indexing="ij"), axis=-1).reshape(-1, 2), (copies, 1))


def test_a_feature_that_is_the_factor_has_relevance_one_and_noise_has_none() -> None:
    codes = grid(40)
    rng = np.random.default_rng(0)
    values = np.stack([codes[:, 0] * 2.0, -codes[:, 1], rng.standard_normal(len(codes)), np.zeros(len(codes))], axis=1)
    found = scores.relevance(scores.binned(values, np.ones(len(codes), bool)), codes)
    np.testing.assert_allclose(found[:2], np.eye(2), atol=0.02)
    np.testing.assert_allclose(found[2], 0, atol=0.03)
    assert found[3].tolist() == [0, 0]


def test_relevance_is_the_adjusted_mutual_information_with_the_factor_entropy_as_its_norm() -> None:
    """For a feature with the same margins as the factor every norm of the adjusted score is the same number."""
    rng = np.random.default_rng(1)
    code = rng.permutation(np.repeat(range(4), 25))
    noisy = np.where(rng.random(100) < 0.3, np.roll(code, 1), code)
    noisy = np.sort(code)[np.argsort(np.argsort(noisy, kind="stable"))]  # the same margins
    got = scores.relevance(noisy[:, None], code[:, None])[0, 0]
    assert got == pytest.approx(adjusted_mutual_info_score(code, noisy), abs=1e-9)
    assert 0.1 < got < 0.9


def test_plain_mutual_information_would_reward_noise() -> None:
    """27 levels in 8 bins share much by chance: what the expectation takes off is large."""
    rng = np.random.default_rng(2)
    code, noise = np.tile(np.arange(27), 18), rng.integers(0, 8, 486)
    assert abs(scores.relevance(noise[:, None], code[:, None])[0, 0]) < 0.02
    assert mutual_info_score(code, noise) / np.log(27) > 0.04


def test_single_takes_the_factor_from_training_and_the_value_from_judging() -> None:
    training = np.array([[0.9, 0.1], [0.2, 0.3]])
    judging = np.array([[0.5, 0.2], [0.6, 0.1]])  # the second feature's factor does not hold: its gap is negative
    found = scores.single(training, judging)
    assert found["factor"].tolist() == [0, 1]
    assert found["own"].tolist() == [0.5, 0.1]
    np.testing.assert_allclose(found["gap"], [0.3, -0.5])
    np.testing.assert_allclose(scores.mig(training, judging), [0.5 - 0.6, 0.1 - 0.2])


def test_dci_by_hand() -> None:
    assert scores.dci(np.eye(3)) == (1, 1)
    assert scores.dci(np.ones((4, 4))) == (pytest.approx(0), pytest.approx(0))
    # two features for one factor each: each row names one factor (D = 1), each column is spread
    # over two of four features (C = 1/2)
    assert scores.dci(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])) == (pytest.approx(1), pytest.approx(0.5))
    # a dead feature counts nothing; the mixed one has weight 2/3 and a row entropy of 1 bit, so D = 1/3
    got = scores.dci(np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))[0]
    assert got == pytest.approx(1 / 3)


def test_importances_find_the_planted_features_and_only_on_true_codes() -> None:
    codes = grid(16)
    rng = np.random.default_rng(3)
    values = np.concatenate(
        [codes + 0.1 * rng.standard_normal(codes.shape), rng.standard_normal((len(codes), 3))], axis=1
    )
    training = rng.permutation(np.arange(len(codes)) % 2 == 0)
    importance, accuracy = scores.importances(values, codes, training, 0)
    assert importance.argmax(axis=0).tolist() == [0, 1]
    assert accuracy.min() > 0.95
    shuffled = rng.permuted(codes, axis=0)
    assert scores.importances(values, shuffled, training, 0)[1].max() < 0.6
