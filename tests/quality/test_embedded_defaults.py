"""The embedded model has a suite and a policy of its own, and what is missing is found before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from _stores import make
from typer.testing import CliRunner, Result

from elude.cli import app
from elude.handlers.errors import EludeError
from elude.quality.policies.policy import DEFAULT_POLICY


@pytest.fixture(autouse=True)
def no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("elude.quality.subjects.open_subject.open_subject", refuse)
    monkeypatch.setattr("elude.exporter.models.load.load_model", refuse)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments: object) -> EludeError:
    result = run(*arguments)
    assert isinstance(result.exception, EludeError), (result.output, result.exception)
    assert result.exception.exit_code == 2
    return result.exception


def test_another_model_has_to_name_its_suite(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", verdict=False)
    for subject in (bundle.root, "resnet18", tmp_path / "model.onnx"):
        assert f"elude evaluate {subject} --suite" in refused("evaluate", subject).remedy
    assert "--suite" in refused("preset", "evaluate", bundle.root).remedy


def test_another_model_has_to_name_its_policy(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", verdict=False)
    assert f"elude policy init {bundle.root}" in refused("gate", bundle.root).remedy
    assert not bundle.has("verdict.json")
    assert run("gate", bundle.root, "--policy", DEFAULT_POLICY).exit_code == 0


@pytest.mark.parametrize(
    "option",
    [
        ("--suite", "nothing"),
        ("--suite", "photos", "--out", "file/q.json"),
        ("--suite", "photos", "--out", "photos"),
        ("--suite", "photos", "--pool", "nothing.json", "--pool", "neither.json"),
        ("--suite", "photos", "--policy", "nothing.toml"),
        ("--suite", "photos", "--outputs", "nothing.txt"),
    ],
)
def test_what_is_missing_or_in_the_way_is_found_first(
    option: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").write_bytes(b"")
    refused("evaluate", "resnet18", *option)


def test_an_earlier_result_is_not_replaced_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").write_bytes(b"")
    (tmp_path / "quality.json").write_text("{}")
    assert "quality.json" in refused("evaluate", "resnet18", "--suite", "photos").message
    assert (tmp_path / "quality.json").read_text() == "{}"


def test_budget_and_seed_come_from_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--budget 8" in refused("evaluate", "embedded", "--policy", DEFAULT_POLICY, "--budget", 8).message
    assert "--seed 3" in refused("evaluate", "embedded", "--policy", DEFAULT_POLICY, "--seed", 3).message
