"""The score against the published table: golden scores, ranks and constants."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from elude.handlers.errors import UsageError
from elude.quality.dimensions import DIMENSIONS
from elude.quality.scores.pool import Pool, published_pool, published_rows, trimmed_constants
from elude.quality.scores.quba import PROFILES, PUBLISHED_WEIGHTS, quba_score, ranking, standing

ROWS = published_rows()
GOLDEN = [row for row in ROWS if row["quba"]]


def values_of(row: dict[str, str]) -> dict[str, float]:
    return {d: float(row[d]) for d in DIMENSIONS}


def test_table_is_whole() -> None:
    assert len(ROWS) == 326
    assert len(GOLDEN) >= 17


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["model_id"])
def test_golden_scores_and_ranks(row: dict[str, str]) -> None:
    score = quba_score(values_of(row))
    assert score.total == pytest.approx(float(row["quba"]), abs=1e-6)
    assert not score.partial
    assert standing(score).rank == int(row["quba_rank"])


def test_constants_come_from_the_table() -> None:
    pool = published_pool()
    for dimension, (mean, std) in pool.constants.items():
        found = trimmed_constants([values[dimension] for values in pool.models.values()])
        assert found == pytest.approx((mean, std), abs=1e-5)
        untrimmed = trimmed_constants([values[dimension] for values in pool.models.values()], trim=0)
        assert untrimmed != pytest.approx((mean, std), abs=1e-5)


def test_terms_add_up_and_directions() -> None:
    values = values_of(GOLDEN[0])
    score = quba_score(values)
    assert sum(term.contribution for term in score.per_dimension.values()) == pytest.approx(score.total, abs=1e-12)
    assert sum(PUBLISHED_WEIGHTS.values()) == pytest.approx(6)
    for dimension in DIMENSIONS:
        better = -1e-3 if dimension in ("calibration_error", "params_m") else 1e-3
        assert quba_score({**values, dimension: values[dimension] + better}).total > score.total


def test_partial_is_never_imputed() -> None:
    pool = published_pool()
    mean = {d: pool.constants[d][0] for d in DIMENSIONS}
    some = {"accuracy": mean["accuracy"] + pool.constants["accuracy"][1], "params_m": mean["params_m"]}
    score = quba_score(some)
    assert score.partial
    assert score.total == pytest.approx(0.5)  # (1 + 0) / (1 + 1); imputing the means would give 1 / 6
    assert set(score.missing) == set(DIMENSIONS) - set(some)
    assert set(score.to_json()["per_dimension"]) == set(some)
    assert 1 <= standing(score).rank <= 327


def test_weights_and_profiles() -> None:
    values = values_of(GOLDEN[0])
    only = quba_score(values, {"accuracy": 2.0})
    assert only.total == pytest.approx(only.per_dimension["accuracy"].z)
    assert not only.partial
    for name in PROFILES:
        assert np.isfinite(quba_score(values, name).total)
    assert "params_m" not in quba_score(values, "safety").per_dimension


def test_own_pool() -> None:
    pool = Pool.of("releases", {"v1": {"accuracy": 0.8, "params_m": 1.0}, "v2": {"accuracy": 0.9, "params_m": 1.0}})
    score = quba_score({"accuracy": 0.9}, reference=pool)
    assert score.reference == "releases"
    assert score.total == pytest.approx(1.0)
    place = standing(score, pool, nearest=1)
    assert (place.rank, place.of, place.nearest[0][0]) == (1, 2, "v2")
    with pytest.raises(UsageError, match="does not vary"):
        quba_score({"params_m": 1.0}, reference=pool)


def test_ranking_is_sorted_and_whole() -> None:
    order = ranking(published_pool())
    assert len(order) == 326
    assert order == sorted(order, key=lambda item: -item[1])


@pytest.mark.parametrize(
    ("values", "weights", "reference"),
    [
        ({"acuracy": 0.5}, None, "quba-2025"),
        ({"accuracy": float("nan")}, None, "quba-2025"),
        ({}, None, "quba-2025"),
        ({"accuracy": 0.5}, {"accuracy": -1.0}, "quba-2025"),
        ({"accuracy": 0.5}, {"accuracy": 0.0}, "quba-2025"),
        ({"accuracy": 0.5}, {"speed": 1.0}, "quba-2025"),
        ({"accuracy": 0.5}, "pilot", "quba-2025"),
        ({"accuracy": 0.5}, None, "quba-2026"),
    ],
)
def test_refuses(values: dict[str, float], weights: dict[str, float] | str | None, reference: str) -> None:
    with pytest.raises(UsageError):
        quba_score(values, weights, reference)


def test_needs_no_torch() -> None:
    modules = "elude.quality.scores.quba, elude.quality.evaluation.evaluate, elude.quality.suites.suite"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)
