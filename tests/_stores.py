"""Small judged bundles and their archives, for tests of the store."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from _tiny import LABELS, LAYER, PREPROCESS, tiny_model

from elude.handlers.bundle.bundle import Bundle, Source, write_bundle
from elude.model_store.archive import package
from elude.model_store.store import Store
from elude.quality.gate.judge import judge
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.gate.waivers import Waiver
from elude.quality.policies.policy import load_policy

TODAY = datetime.now(UTC).date()


def make(
    root: Path,
    *,
    content: bytes = b"graph",
    accuracy: float = 0.9,
    waive_until: date | None = None,
    verdict: bool = True,
    labels: Sequence[str] | None = None,
) -> Bundle:
    """A judged bundle that can be served; another ``content`` makes another artefact of the same model, and other
    ``labels`` one whose answers differ.
    """
    with write_bundle(
        root, source=Source("Tiny/Model", "1", "vit", "f" * 64), layers=(LAYER,), parameters=9, versions={}
    ) as folder:
        (folder / "model.onnx").write_bytes(tiny_model(content))
        (folder / "preprocess.json").write_text(json.dumps(PREPROCESS.to_json()))
        (folder / "labels.json").write_text(json.dumps(list(LABELS if labels is None else labels)))
        claims = {"sums": {"layers": [{"passed": True}]}} | {
            c: {"outputs": [{"passed": True}]} for c in ("rewrite", "runtime")
        }
        equivalence = {"schema_version": 1, "passed": True, "summary": dict.fromkeys(claims, 0.0), "claims": claims}
        (folder / "equivalence.json").write_text(json.dumps(equivalence))
    bundle = Bundle.open(root)
    values = {
        "accuracy": accuracy,
        "calibration_error": 0.05,
        "class_balance": 0.8,
        "corruption_robustness": 0.7,
        "params_m": 0.6,
    }
    dimensions = {
        name: {
            "value": value,
            "interval": [value, value],
            "higher_is_better": name not in ("calibration_error", "params_m"),
            "measured_on": {"sets": {"images": {"images": 1000, "sha256": "9" * 64}}},
        }
        for name, value in values.items()
    }
    quality = {
        "schema_version": 2,
        "settings": {"budget": 200, "seed": 0},
        "subject": {"artefact_sha256": bundle.artefact_sha256},
        "suite": {"name": "s", "sha256": "c" * 64, "images": 1000},
        "dimensions": dimensions,
        "lossless": {form: values for form in ("original", "disentangled", "served")},
    }
    bundle = bundle.add({"quality.json": json.dumps(quality).encode()})
    if not verdict:
        return bundle
    waivers = [] if waive_until is None else [Waiver("accuracy", "known", "Ada", waive_until, bundle.artefact_sha256)]
    day = TODAY if waive_until is None else min(TODAY, waive_until)
    return bundle.add({"verdict.json": verdict_json(judge(bundle, load_policy(), waivers=waivers, today=day))})


def pack(path: Path, bundle: Bundle, **replaced: bytes) -> Path:
    """Its archive, or one in which files of the bundle were replaced: ``labels_json=b"[]"``."""
    package(bundle, path, name="tiny", version="1.0")
    if replaced:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, replaced.get(name.rpartition("/")[2].replace(".", "_"), content))
    return path


def admit(store: Store, bundle: Bundle, archive: Path | None = None) -> Any:
    return store.admit(bundle.root, archive, who="Ada", why="release")
