"""What other tools are told is what was measured; MLflow is stood in for by a recorder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _stores import make

from elude.handlers.errors import UsageError
from elude.model_store.links import log_to_mlflow, model_index, provenance


def test_the_card_and_the_statement_hold_what_was_measured(tmp_path: Path):
    bundle = make(tmp_path / "b")
    front = json.loads(model_index(bundle).strip("-\n"))
    metrics = {metric["type"]: metric["value"] for metric in front["model-index"][0]["results"][0]["metrics"]}
    assert metrics == {name: entry["value"] for name, entry in bundle.json("quality.json")["dimensions"].items()}
    statement = provenance(bundle)
    assert {"name": "artefact", "digest": {"sha256": bundle.artefact_sha256}} in statement["subject"]
    assert statement["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] == {"sha256": "f" * 64}


def test_mlflow_gets_metrics_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundle, told = make(tmp_path / "b"), []
    note: Any = lambda *args: told.append(args)  # noqa: E731
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(log_metric=note, set_tag=note, log_artifact=note))
    log_to_mlflow(bundle)
    assert ("accuracy", 0.9) in told
    assert (str(bundle.path("verdict.json")),) in told
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="not installed"):
        log_to_mlflow(bundle)
