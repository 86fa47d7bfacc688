"""What the gate's tests judge: a policy, and evidence of a good candidate to be damaged in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from random import Random
from typing import Any

from elude.quality.gate.evidence import Evidence
from elude.quality.gate.judge import decide
from elude.quality.gate.verdict import Verdict
from elude.quality.gate.waivers import Waiver
from elude.quality.policies.policy import Policy, parse_policy

TODAY = date(2026, 1, 15)
HASH, OTHER = "a" * 64, "b" * 64
POLICY = b"""
schema_version = 1
name = "test"
[suite]
min_images = 100
[dimensions.accuracy]
min = 0.8
max_drop = 0.05
max_drop_relative = 0.1
decide_on = "bound"
[dimensions.calibration_error]
max = 0.1
max_drop = 0.05
[dimensions.params_m]
max = 5
severity = "warn"
[dimensions.shape_bias]
min = 0.2
required = false
[score]
min = 0.0
allow_partial = true
[lossless.claims]
sums = 1e-4
rewrite = 0
runtime = 1e-4
[lossless.served]
accuracy = 0.01
default = 0.02
"""


def entry(value: float, interval: list[float] | None = None, higher: bool = True) -> dict[str, Any]:
    return {
        "value": value,
        "interval": interval,
        "higher_is_better": higher,
        "factors": {},
        "factor_intervals": {},
        "tables": {},
        "images": 500,
        "measured_on": {"sets": {"images": {"images": 500, "sha256": "9" * 64}}},
    }


def quality() -> dict[str, Any]:
    values = {"accuracy": 0.9, "calibration_error": 0.05}
    return {
        "schema_version": 2,
        "subject": {"kind": "served", "model": "m", "artefact_sha256": HASH},
        "suite": {"name": "s", "sha256": "c" * 64, "images": 500},
        "dimensions": {
            "accuracy": entry(0.9, [0.88, 0.92]),
            "calibration_error": entry(0.05, None, False),
            "params_m": entry(0.6, None, False),
        },
        "settings": {"budget": None, "seed": 0},
        "lossless": {"original": dict(values), "disentangled": dict(values), "served": dict(values)},
        "score": {
            "total": 0.5,
            "partial": True,
            "reference": "r",
            "per_dimension": {
                "accuracy": {"z": 1.0, "weight": 1.0, "contribution": 0.5},
                "calibration_error": {"z": 0.0, "weight": 1.0, "contribution": 0.0},
            },
        },
    }


def equivalence() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "passed": True,
        "summary": {"sums": 1.5e-6, "rewrite": 0.0, "runtime": 2e-6, "top1": 1.0},
        "claims": {
            "sums": {"layers": [{"passed": True}]},
            "rewrite": {"outputs": [{"passed": True}]},
            "runtime": {"outputs": [{"passed": True}]},
        },
    }


def evidence(**changes: Any) -> Evidence:
    return replace(Evidence("m", HASH, quality(), equivalence(), "d" * 64, "e" * 64), **changes)


def policy(*changes: tuple[str, str]) -> Policy:
    text = POLICY.decode()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_policy(text.encode())


def run(
    candidate: Evidence | None = None, baseline: Evidence | None = None, waivers: tuple[Waiver, ...] = (), **kw: Any
) -> Verdict:
    return decide(candidate or evidence(), kw.get("policy") or policy(), baseline or evidence(), waivers, TODAY)


def put(*path_and_value: Any) -> Callable[[dict[str, Any]], None]:
    *path, last, value = path_and_value

    def change(document: dict[str, Any]) -> None:
        for key in path:
            document = document[key]
        if value is DROP:
            del document[last]
        else:
            document[last] = value

    return change


DROP = object()
D = "dimensions"


def waiver(**changes: Any) -> Waiver:
    return replace(Waiver("accuracy", "known", "Ada", date(2026, 2, 1), HASH), **changes)


def bad_accuracy() -> Evidence:
    document = quality()
    document[D]["accuracy"] = entry(0.78, [0.76, 0.80])
    return evidence(quality=document)


def shuffled(value: Any, random: Random) -> Any:
    """The same JSON document with its keys in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], random) for key in random.sample(sorted(value), len(value))}
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value
