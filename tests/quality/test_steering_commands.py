"""Presets and tuning from the command line: kept, measured, judged and searched for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from _released import POLICY, exported
from typer.testing import CliRunner

from elude.cli import app
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.bundle.edits import Edit
from elude.handlers.errors import RequestError, UsageError
from elude.quality.steering.gradients import gain_gradients, stand_in
from elude.quality.steering.presets import add_preset, edits_of, remove_preset, steered_subjects
from elude.quality.steering.tune import TuneSettings, candidates, tune
from elude.quality.steering.tune_values import load_images
from elude.quality.suites.open_suite import EMBEDDED, embedded_suite, open_suite


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("exported") / "b").root


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder)  # as the test before left it


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def listed(bundle: Bundle) -> dict[str, str]:
    found: dict[str, str] = json.loads(run("preset", "list", bundle.root, "--json"))
    return found


@pytest.mark.slow
def test_a_preset_from_the_first_word_to_its_ruling(bundle: Bundle, tmp_path: Path) -> None:
    layer = bundle.manifest.layers[0].name
    run("preset", "add", bundle.root, "kind", "--edit", f"{layer}/u0.s0=scale:1.01", "--edit", f"{layer}/u1.s0=add:0@3")
    many = [
        word for unit in range(bundle.manifest.layers[0].units) for word in ("--edit", f"{layer}/u{unit}.s0=scale:-40")
    ]
    run("preset", "add", bundle.root, "harmful", *many[:120])
    run("preset", "add", bundle.root, "gone", "--edit", f"{layer}/u0.s0=ablate")
    assert edits_of(Bundle.open(bundle.root))["kind"] == (
        Edit.scale(0, 1.01),
        Edit.add(bundle.manifest.layers[0].parts[0], 0.0, 3),
    )
    run("preset", "remove", bundle.root, "gone")
    assert listed(bundle) == {"kind": "2 edits; not measured", "harmful": "60 edits; not measured"}
    run("evaluate", bundle.root, "--dimensions", "accuracy,params_m")
    values = json.loads(run("preset", "evaluate", bundle.root, "--dimensions", "accuracy", "--json"))
    assert values["harmful"]["accuracy"] < 0.8 < values["kind"]["accuracy"]
    assert listed(bundle)["kind"] == "2 edits; measured, not judged"
    (tmp_path / "policy.toml").write_text(POLICY.text)
    run("gate", bundle.root, "--policy", tmp_path / "policy.toml")
    found = listed(bundle)
    assert found["kind"] == "2 edits; passed"
    assert found["harmful"].startswith("60 edits; refused: accuracy")


def test_a_preset_may_steer_a_concept_and_must_steer_something(bundle: Bundle) -> None:
    catalogue = Catalogue.of(bundle)
    concept = next(row for row in catalogue.concepts() if row.name is not None)
    catalogue.close()
    added = run("preset", "add", bundle.root, "less", "--concept", f"{concept.name}=scale:-2@3")
    assert f"less: {len(concept.members)} edit" in added
    edits = edits_of(Bundle.open(bundle.root))["less"]
    assert {edit.index for edit in edits} == set(concept.members)
    assert {(edit.gain, edit.patches) for edit in edits} == {(-2.0, 3)}
    run("preset", "remove", bundle.root, "less")
    with pytest.raises(UsageError, match="no edits"):
        run("preset", "add", bundle.root, "nothing")


def test_wrong_presets_are_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="no preset 'other'"):
        remove_preset(bundle, "other")
    with pytest.raises(RequestError, match="no such sub-unit"):
        add_preset(bundle, "wrong", [{"id": "nothing/u0.s0", "action": "ablate"}])
    after = Bundle.open(bundle.root)
    assert "presets.json" not in after.manifest.files or "wrong" not in after.json("presets.json")


@pytest.mark.parametrize("dimension", ["class_balance", "accuracy"])
def test_the_gradient_is_the_slope_of_the_stand_in(bundle: Bundle, dimension: str) -> None:
    """Against finite differences of the served graph's own answers, for the steepest sub-units."""
    plain = steered_subjects(bundle, {"plain": ()})["plain"]
    images = load_images(embedded_suite(), plain).rows(np.arange(0, 1000, 20))
    slopes = gain_gradients(bundle, plain, images, dimension, seed=0)
    assert len(slopes) == bundle.manifest.layers[0].sub_units
    (part,) = stand_in(plain, images, dimension, seed=0)

    def value(gain: float, index: int) -> float:
        outputs = plain.session.run(
            plain.preprocess.normalise(part.pixels), [[Edit.scale(index, gain)]] * len(part.plus)
        ).output
        logs = outputs - np.log(np.exp(outputs.astype(np.float64)).sum(axis=1, keepdims=True))
        chosen = logs[np.arange(len(logs)), part.plus]
        return float((part.weights * (chosen if part.log else np.exp(chosen))).sum())

    for index in np.argsort(-np.abs(slopes))[:3]:
        by_hand = (value(1.1, int(index)) - value(0.9, int(index))) / 0.2
        assert slopes[index] == pytest.approx(by_hand, rel=0.05, abs=1e-5)


def test_candidates_go_where_the_gradient_points() -> None:
    found = candidates(np.array([0.1, -3.0, 0.0, 2.0]), TuneSettings(pool=3, steps=(1.0, 3.0)))
    assert [(edit.index, edit.gain) for edit in found] == [(1, 0.0), (1, -2.0), (3, 2.0), (3, 4.0), (0, 2.0), (0, 4.0)]
    assert found[0] == Edit.scale(1, 0.0)


@pytest.mark.slow
def test_tune_reports_on_other_images_beside_its_controls(bundle: Bundle) -> None:
    settings = TuneSettings(pool=3, images=60, controls=3, resamples=20)
    tuning = open_suite(EMBEDDED.with_name("probe.tar"), dark_background=True)
    report = tune(bundle, "calibration_error", tuning, embedded_suite(), POLICY, settings)
    held = report.held_out["calibration_error"]
    assert held.interval[0] <= held.gain <= held.interval[1]
    assert held.gain == pytest.approx(held.steered - held.plain)
    assert len(report.controls) == (3 if report.edits else 0)
    assert report.evaluated >= 7  # three sub-units of two steps each, and the model itself
    json.dumps(report.to_json())
    with pytest.raises(UsageError, match="held-out images are the tuning images"):
        tune(bundle, "accuracy", embedded_suite(), embedded_suite(), POLICY, settings)
    with pytest.raises(UsageError, match="cannot be tuned"):
        tune(bundle, "params_m", tuning, embedded_suite(), POLICY, settings)


@pytest.mark.slow
def test_tune_from_the_command_line(bundle: Bundle) -> None:
    arguments = (
        "tune",
        bundle.root,
        "accuracy",
        "--tuning",
        "probe",
        "--pool",
        2,
        "--images",
        40,
        "--preset",
        "tuned",
        "--json",
    )
    found = json.loads(run(*arguments))
    assert found["dimension"] == "accuracy"
    after = Bundle.open(bundle.root)
    presets = after.json("presets.json") if after.has("presets.json") else {}  # none, if no test before made one
    assert ("tuned" in presets) == bool(found["edits"])
