"""A release told to other tools, each optional: MLflow, a model card for the Hugging Face Hub, a SLSA provenance
statement.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from elude.handlers.admission.trust import STATEMENT_TYPE, signed_content
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import UsageError
from elude.quality.gate.evidence import gather


def model_index(bundle: Bundle) -> str:
    """A model card's YAML front matter with ``model-index``: each measured dimension as a metric (JSON is YAML)."""
    evidence, source = gather(bundle), bundle.manifest.source
    metrics = []
    for dimension in evidence.dimensions:
        measured = evidence.measurement(dimension)
        if measured is not None and not measured.problem:
            metrics.append({"type": dimension, "value": measured.value, "name": dimension.replace("_", " ")})
    dataset = {
        "name": str(evidence.suite.get("name", "unknown")),
        "type": "image-classification",
        "revision": evidence.suite.get("sha256"),
    }
    result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
    content = {
        "library_name": "onnx",
        "base_model": source.model,
        "model-index": [{"name": source.model, "results": [result]}],
    }
    return f"---\n{json.dumps(content, indent=1)}\n---\n"


def provenance(bundle: Bundle) -> dict[str, Any]:
    """An in-toto statement with SLSA provenance v1: what the bundle was made of, and with what.

    Sign it with ``signing.envelope``.
    """
    manifest, source = bundle.manifest, bundle.manifest.source
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(signed_content(bundle).items())
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:elude:export:v1",
                "externalParameters": {"model": source.model, "layers": [layer.name for layer in manifest.layers]},
                "internalParameters": {"versions": manifest.versions},
                "resolvedDependencies": [
                    {
                        "uri": f"urn:elude:model:{source.model}@{source.revision}",
                        "digest": {"sha256": source.weights_sha256},
                    }
                ],
            },
            "runDetails": {"builder": {"id": "urn:elude:exporter"}},
        },
    }


def log_to_mlflow(bundle: Bundle) -> None:
    """Log every measured dimension and the bundle's reports to the active MLflow run.

    Raises:
        UsageError: MLflow is not installed.
    """
    try:
        mlflow = importlib.import_module("mlflow")
    except ImportError as error:
        raise UsageError("MLflow is not installed.", "pip install mlflow") from error
    evidence = gather(bundle)
    for dimension in evidence.dimensions:
        measured = evidence.measurement(dimension)
        if measured is not None and not measured.problem:
            mlflow.log_metric(dimension, measured.value)
    mlflow.set_tag("elude.artefact_sha256", bundle.artefact_sha256)
    for name in ("quality.json", "verdict.json", "report.html"):
        if bundle.has(name):
            mlflow.log_artifact(str(bundle.path(name)))
