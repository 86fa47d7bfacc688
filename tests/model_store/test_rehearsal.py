"""Nothing is admitted that a server could not serve: the bundle is opened and each of its presets is asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import _stores
import pytest
from _stores import admit, make
from _tiny import LABELS, tiny_model

from elude.handlers.admission.admission import preset_hashes
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import BundleError, GateError
from elude.handlers.service import Service
from elude.model_store.rehearsal import require_answers
from elude.model_store.store import Store


def with_presets(bundle: Bundle, text: str) -> Bundle:
    """The bundle with presets that its verdict lets pass, as a gate that did not look at them would have."""
    bundle = bundle.add({"presets.json": text.encode()})
    verdict = bundle.json("verdict.json")
    checks = [{"name": "accuracy", "outcome": "pass"}]
    verdict["presets"] = {
        name: {"passed": True, "edits_sha256": sha256, "checks": checks}
        for name, sha256 in preset_hashes(bundle).items()
    }
    return bundle.add({"verdict.json": json.dumps(verdict).encode()})


def preset(value: str, action: str = "scale") -> str:
    return '{"p": [{"id": "fc2/u0.s1", "action": "' + action + '", "value": ' + value + "}]}"


def test_the_tiny_model_is_served(tmp_path: Path) -> None:
    service = Service.open(make(tmp_path / "b").root)
    assert service.labels == LABELS
    require_answers(with_presets(service.bundle, preset("2.0")))


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "1e39", '"2"', "null", "true"])
def test_a_preset_that_no_request_could_use_is_not_admitted(tmp_path: Path, value: str) -> None:
    bundle = make(tmp_path / "b")
    with pytest.raises((GateError, BundleError)):
        require_answers(with_presets(bundle, preset(value)))


def test_a_preset_that_makes_answers_infinite_is_not_admitted(tmp_path: Path) -> None:
    """The tiny model adds an edit's gain to its logits: two of the largest make them infinite."""
    edits = [{"id": f"fc2/u{u}.s{s}", "action": "scale", "value": 1e6} for u, s in ((0, 0), (0, 1), (1, 0))]
    require_answers(with_presets(make(tmp_path / "b"), json.dumps({"large": edits})))
    edits[0]["value"] = 1e7
    with pytest.raises((GateError, BundleError), match="large"):
        require_answers(with_presets(make(tmp_path / "c"), json.dumps({"large": edits})))


@pytest.mark.parametrize("name", ["tiny_model", "PREPROCESS", "LABELS"])
def test_a_bundle_that_cannot_be_opened_is_not_admitted(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {
        "tiny_model": lambda mark: b"graph",
        "PREPROCESS": SimpleNamespace(to_json=dict),
        "LABELS": ["one class of three"],
    }
    monkeypatch.setattr(_stores, name, broken[name])
    store = Store(tmp_path / "store")
    with pytest.raises((GateError, BundleError)):
        admit(store, make(tmp_path / "b"))
    assert store.list() == ()


def test_marks_make_other_bytes_of_the_same_model() -> None:
    assert tiny_model(b"a") == tiny_model(b"a") != tiny_model(b"b")
