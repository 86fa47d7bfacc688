"""elude evaluate, score, compare and report, as they are typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from _serving import make_bundle
from typer.testing import CliRunner, Result

from elude.cli import app
from elude.handlers.errors import EludeError
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.open_suite import embedded_suite

QUICK = ("--dimensions", "accuracy,calibration_error,params_m")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def report(path: Path) -> QualityReport:
    return QualityReport.from_json(json.loads(path.read_bytes()))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite.toml over a few of the embedded images."""
    root = tmp_path_factory.mktemp("suite")
    for example in cast(EncodedSet, embedded_suite().images).source.limited(20):
        path = root / "val" / str(example.label) / Path(example.name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(example.data)
    text = (
        'schema_version = 1\nname = "few"\n[images]\nsource = "val"\n'
        '[corruptions]\nnames = ["contrast"]\nseverities = ["3"]\n'
    )
    (root / "suite.toml").write_text(text)
    return root


@pytest.fixture(scope="module")
def measured(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "q.json"
    done("evaluate", "embedded", "--suite", suite / "suite.toml", "--out", out, *QUICK)
    return out


def test_a_model_by_name_on_a_suite_file(measured: Path) -> None:
    found = report(measured)
    assert found.subject["kind"] == "torch"
    assert found.subject["model"] == "embedded"
    assert found.suite["name"] == "few"
    assert found.suite["images"] == 20
    assert set(found.dimensions) == {"accuracy", "calibration_error", "params_m"}


def test_a_folder_that_holds_one_and_what_cannot_be_measured(suite: Path, tmp_path: Path) -> None:
    shown = done("evaluate", "embedded", "--suite", suite, "--out", tmp_path / "all.json", "--budget", 8).output
    found = report(tmp_path / "all.json")
    assert set(found.settings["not_measured"]) == {"ood_robustness", "object_focus", "shape_bias"}
    assert found.dimensions["adversarial_robustness"].images == 8
    assert "not measured" in shown


def test_an_onnx_file_with_its_description(suite: Path, tmp_path: Path) -> None:
    bundle, graph, described = make_bundle(tmp_path / "bundle"), tmp_path / "other" / "m.onnx", tmp_path / "described"
    for folder, names in ((graph.parent, ()), (described, ("preprocess.json", "labels.json"))):
        folder.mkdir()
        for name in names:
            shutil.copy(bundle.path(name), folder)
    shutil.copy(bundle.path("model.onnx"), graph)
    out = tmp_path / "graph.json"
    done("evaluate", graph, "--described-by", described, "--suite", suite, "--out", out, "--dimensions", "accuracy")
    assert report(out).subject["kind"] == "onnx"
    refused = run("evaluate", graph, "--suite", suite, "--out", out)
    assert isinstance(refused.exception, EludeError)
    assert "preprocess.json" in refused.exception.remedy


def test_cache_and_workers_give_the_same_bytes(suite: Path, measured: Path, tmp_path: Path) -> None:
    for name in ("first.json", "again.json"):
        done("evaluate", "embedded", "--suite", suite, "--out", tmp_path / name, "--cache", tmp_path / "cache", *QUICK)
        assert (tmp_path / name).read_bytes() == measured.read_bytes()
    assert len(list((tmp_path / "cache").glob("*/images-*.npz"))) == 1
    done(
        "evaluate",
        "embedded",
        "--suite",
        suite,
        "--out",
        tmp_path / "w.json",
        "--workers",
        1,
        "--engine",
        "local",
        *QUICK,
    )
    assert (tmp_path / "w.json").read_bytes() == measured.read_bytes()
    assert isinstance(run("evaluate", "embedded", "--suite", suite, "--engine", "dask").exception, EludeError)


def earlier(path: Path, source: Path, **values: float) -> Path:
    """The same report with other values."""
    data: dict[str, Any] = json.loads(source.read_bytes())
    for name, value in values.items():
        data["dimensions"][name]["value"] = value
    path.write_text(json.dumps(data))
    return path


def test_own_pools(suite: Path, measured: Path, tmp_path: Path) -> None:
    pool = [
        earlier(tmp_path / "a.json", measured, accuracy=0.2, calibration_error=0.1, params_m=1.0),
        earlier(tmp_path / "b.json", measured, accuracy=0.6, calibration_error=0.3, params_m=3.0),
    ]
    options = [word for path in pool for word in ("--pool", path)]
    shown = done("score", pool[0], *options, "--json").output
    found = json.loads(shown)
    # by hand: mean 0.4, deviation 0.2 → z of accuracy -1; calibration 0.1 of (0.2, 0.1) → +1;
    # parameters 1 of (2, 1) → +1
    assert found["total"] == pytest.approx(1 / 3)
    assert (found["rank"], found["of"], found["reference"]) == (1, 2, "own")
    # size weighs 3 of 5 for devices: (-1 + 1 + 3) / 5
    assert json.loads(done("score", pool[0], *options, "--weights", "edge", "--json").output)["total"] == pytest.approx(
        0.6
    )
    out = tmp_path / "scored.json"
    done("evaluate", "embedded", "--suite", suite, "--out", out, *QUICK, *options)
    score = report(out).score
    assert score is not None
    assert score["reference"] == "own"
    assert score["partial"] is True
    assert isinstance(run("score", measured, "--pool", pool[0]).exception, EludeError)  # one is no pool


def test_compare_page(measured: Path, tmp_path: Path) -> None:
    better = earlier(tmp_path / "b.json", measured, params_m=0.1)
    shown = done("compare", measured, better, "--html", tmp_path / "change.html").output
    assert "better" in shown
    page = (tmp_path / "change.html").read_text()
    assert "<script" not in page
    assert "params_m" in page or "Parameters" in page


def test_a_place_that_cannot_be_written(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run(
        "evaluate", "embedded", "--suite", suite, "--out", tmp_path / "file" / "q.json", "--dimensions", "params_m"
    )
    assert isinstance(refused.exception, EludeError)
    assert "cannot be written" in refused.exception.message
