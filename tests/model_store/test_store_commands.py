"""The store from the command line, and what is told to other tools."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from _stores import make
from typer.testing import CliRunner

from elude.cli import app
from elude.handlers.admission.requirements import ENVIRONMENT, Requirements
from elude.handlers.admission.trust import pre_authentication as signed_bytes
from elude.handlers.admission.trust import read_keys, verify
from elude.handlers.errors import GateError, UsageError


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for number in range(1, 4):
        run(
            "admit",
            make(tmp_path / f"b{number}", content=bytes([number])).root,
            "--store",
            tmp_path / "store",
            "--who",
            "Ada",
        )
    return tmp_path / "store"


def test_show_tells_one_version_and_all_its_changes(store: Path) -> None:
    run("store", "promote", "tiny-model/2", "--store", store, "--who", "Ada", "--why", "canary was fine")
    shown = json.loads(run("store", "show", "tiny-model/production", "--store", store, "--json"))
    assert shown["stages"] == "production"
    assert len(shown["archive_sha256"]) == len(shown["policy_sha256"]) == 64
    changes = [(name.split(" ", 1)[1], text) for name, text in shown.items() if name.startswith("20")]
    assert changes == [("admit", "Ada: release"), ("promote production", "Ada: canary was fine")]


def test_gc_removes_what_nothing_holds(store: Path) -> None:
    run("store", "promote", "tiny-model/1", "--store", store, "--who", "Ada")
    assert "nothing" in run("store", "gc", "--store", store)
    assert "versions/tiny-model/" in run("store", "gc", "--store", store, "--keep", 1, "--who", "Ada")
    listed = run("store", "list", "--store", store)
    assert [f"tiny-model/{number}" in listed for number in (1, 2, 3)] == [True, False, True]
    run("store", "verify", "--store", store)


def test_requirements_for_a_server(store: Path, tmp_path: Path) -> None:
    run("store", "promote", "tiny-model/3", "--store", store, "--who", "Ada")
    run("store", "requirements", "--store", store, "--out", tmp_path / "admission.json")
    found = Requirements.load({ENVIRONMENT: str(tmp_path / "admission.json")})
    assert found.verdict
    assert found.archives is not None
    assert len(found.archives) == 1


def test_the_store_of_the_command_line_asks_for_what_the_environment_requires(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = json.loads(run("keygen", tmp_path / "ada.pem", "--owner", "Ada"))
    (tmp_path / "required.json").write_text(
        json.dumps({"schema_version": 1, "require_signature": True, "trust": [key]})
    )
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "required.json"))
    with pytest.raises(GateError, match="is not signed"):
        run("admit", tmp_path / "b1", "--store", tmp_path / "signed", "--who", "Ada")
    run("admit", tmp_path / "b1", "--store", tmp_path / "signed", "--who", "Ada", "--sign-key", tmp_path / "ada.pem")
    assert "tiny-model/1" in run("store", "verify", "--store", tmp_path / "signed")


def test_card_and_provenance(store: Path, tmp_path: Path) -> None:
    card = run("card", tmp_path / "b1")
    assert card.startswith("---\n")
    assert json.loads(card.strip().strip("-"))["model-index"][0]["results"][0]["metrics"][0]["type"] == "accuracy"
    statement = json.loads(run("provenance", tmp_path / "b1"))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    key = read_keys([json.loads(run("keygen", tmp_path / "ada.pem", "--owner", "Ada"))])[0]
    envelope = json.loads(run("provenance", tmp_path / "b1", "--sign-key", tmp_path / "ada.pem"))
    payload = base64.b64decode(envelope["payload"])
    assert json.loads(payload) == statement
    assert verify(key.public_key, base64.b64decode(envelope["signatures"][0]["sig"]), signed_bytes(payload))


def test_mlflow_is_never_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(UsageError, match="MLflow is not installed"):
        run("mlflow", make(tmp_path / "b").root)
