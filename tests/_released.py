"""A released bundle of the embedded model: exported, with a preset that is as good and one that is not, measured and
judged for real.
"""

from __future__ import annotations

from pathlib import Path

from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.pipeline import export
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.requests.steering import identifier_of
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.gate.judge import judge
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.policies.policy import parse_policy
from elude.quality.steering.presets import add_preset, evaluate_presets
from elude.quality.suites.open_suite import embedded_suite

POLICY = parse_policy(
    b"""schema_version = 1
name = "accuracy"
[baseline]
required = false
[dimensions.accuracy]
min = 0.8
max_drop = 0.02
[lossless.claims]
sums = 1e-3
rewrite = 0.0
runtime = 1e-3
[lossless.disentangled]
default = 1e-6
[lossless.served]
default = 0.01
"""
)


def exported(path: Path) -> Bundle:
    """The embedded model, split on few images."""
    return export("embedded", None, "last", path, ExportSettings(max_images=300, tokens_per_image=4))


def with_presets(bundle: Bundle) -> Bundle:
    """``kind`` changes one sub-unit a little, ``harmful`` turns sixty around."""
    layers = bundle.manifest.layers
    total = sum(layer.sub_units for layer in layers)
    bundle = add_preset(bundle, "kind", [{"id": identifier_of(0, layers), "action": "scale", "value": 1.01}])
    many = [
        {"id": identifier_of(i, layers), "action": "scale", "value": -40.0}
        for i in range(0, total, max(1, total // 60))
    ][:60]
    return add_preset(bundle, "harmful", many)


def released(path: Path) -> Bundle:
    """Exported, evaluated and judged, presets and all."""
    bundle, suite = with_presets(exported(path)), embedded_suite()
    report = evaluate(bundle, suite, dimensions=["accuracy", "params_m"])
    bundle = evaluate_presets(bundle.add({"quality.json": report.to_bytes()}), suite, dimensions=["accuracy"])
    return bundle.add({"verdict.json": verdict_json(judge(bundle, POLICY))})
