"""Comparing and scoring reports, as the command line does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elude.handlers.errors import UsageError
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.dimensions.result import DimensionResult
from elude.quality.report.behaviour import comparison_page
from elude.quality.scores.compare import compare, read_report, rows
from elude.quality.scores.scoring import own_pool, score_of


def report(accuracy: float, calibration: float = 0.05, *, suite: str = "s", model: str = "m") -> QualityReport:
    on = {"sets": {"images": {"images": 100, "sha256": suite}}}
    results = {
        "accuracy": DimensionResult(accuracy, True, 100, (accuracy - 0.03, accuracy + 0.03), measured_on=on),
        "calibration_error": DimensionResult(
            calibration, False, 100, (calibration - 0.01, calibration + 0.01), measured_on=on
        ),
        "params_m": DimensionResult(5.0, False, 0),
    }
    return QualityReport(
        {"kind": "onnx", "model": model, "artefact_sha256": None},
        {"name": "x", "sha256": suite},
        results,
        None,
        None,
        {},
        {},
    )


def test_verdicts() -> None:
    found = {change.dimension: change for change in compare(report(0.80), report(0.90, 0.08)).changes}
    assert found["accuracy"].verdict == "better"
    assert found["accuracy"].interval == pytest.approx((0.1 - 0.03 * 2**0.5, 0.1 + 0.03 * 2**0.5))
    assert found["calibration_error"].verdict == "worse"  # lower is better
    assert found["params_m"].verdict == "same"
    assert found["shape_bias"].verdict == "not measured"
    near = {change.dimension: change for change in compare(report(0.80), report(0.82)).changes}
    assert near["accuracy"].verdict == "within noise"
    assert "within noise" in rows(compare(report(0.8), report(0.82)))["accuracy"]


def test_page_is_whole_and_escaped() -> None:
    first, second = report(0.8, model="<b>a"), report(0.9, suite="t")
    text = comparison_page(compare(first, second), first, second)
    assert "<b>a" not in text
    assert "not comparable" in text
    assert "http" not in text.replace("http-equiv", "")
    assert (
        text.count('class="dot" style') == text.count('class="base" style') == 3
    )  # each dimension of both, on one axis
    assert "<script" not in text


def test_score_of_reports_and_own_pools(tmp_path: Path) -> None:
    paths = []
    for i, value in enumerate((0.7, 0.8, 0.9)):
        path = tmp_path / f"{i}.json"
        path.write_bytes(report(value, 0.05 + i / 100).to_bytes())
        paths.append(path)
    assert read_report(paths[0]).values["accuracy"] == 0.7
    with pytest.raises(UsageError):  # off the protocol there is no rank among the published models
        score_of(paths[2], weights={"accuracy": 1.0})
    assert score_of({"accuracy": 0.8}, weights={"accuracy": 1.0}).standing.of == 326  # the caller states the protocol
    relative = score_of(paths[2], weights={"accuracy": 1.0}, pool=paths)
    assert relative.score.total == pytest.approx(0.1 / (0.02 / 3) ** 0.5)
    assert (relative.standing.rank, relative.standing.of) == (1, 3)
    assert json.loads(json.dumps(relative.to_json()))["rank"] == 1
    assert score_of({"accuracy": 0.8}, weights="safety").score.partial
    paths[1].write_bytes(report(0.8, suite="other").to_bytes())
    with pytest.raises(UsageError, match="2 suites"):
        own_pool(paths)
    with pytest.raises(UsageError, match="evaluate"):
        read_report(tmp_path / "nothing.json")
    assert compare(report(0.8), replace(report(0.8), suite={"name": "y", "sha256": "t"})).same_suite is False
