"""The verdict: every check that was made, what it saw, and why it ended as it did."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, get_args

from elude.quality.statistics.intervals import LEVEL

SCHEMA_VERSION = 1
Outcome = Literal["pass", "fail", "warn", "waived"]
State = Literal["judged", "candidate_missing", "not_evaluated", "baseline_missing"]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: unique in its verdict, e.g. ``accuracy.limit``.
        dimension: the dimension it is about; None for integrity and losslessness.
        observed: what was measured; None when there is no finite number.
        interval: confidence interval of ``observed``, as (low, high).
        threshold: what ``observed`` was compared with, in the same unit.
        decided_on: ``point``, ``bound`` or ``presence`` (of a file, a hash, a measurement).
        severity: what a violation counts as.
        outcome: ``waived`` is a violation that a valid waiver lets through.
        reason: the decision in words.
    """

    name: str
    outcome: Outcome
    reason: str
    dimension: str | None = None
    observed: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    decided_on: Literal["point", "bound", "presence"] = "presence"
    severity: Literal["fail", "warn"] = "fail"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dimension": self.dimension,
            "observed": self.observed if self.observed is not None and math.isfinite(self.observed) else None,
            "interval": None if self.interval is None else list(self.interval),
            "threshold": self.threshold,
            "decided_on": self.decided_on,
            "severity": self.severity,
            "outcome": self.outcome,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Check:
        """The inverse of ``to_json``; ValueError on an unknown outcome, TypeError or KeyError on other forms."""
        if data["outcome"] not in get_args(Outcome):
            raise ValueError(f"unknown outcome {data['outcome']!r}")
        fields = dict(data)
        fields["interval"] = None if data["interval"] is None else (data["interval"][0], data["interval"][1])
        return cls(**fields)


@dataclass(frozen=True)
class PresetRuling:
    """The decision on one steering preset, on exactly the edits that ``edits_sha256`` names."""

    edits_sha256: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True only if something was checked and no check failed."""
        return bool(self.checks) and not any(check.outcome == "fail" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "edits_sha256": self.edits_sha256,
            "checks": [check.to_json() for check in self.checks],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PresetRuling:
        """The inverse of ``to_json``; ValueError if ``passed`` does not follow from the checks."""
        ruling = cls(data["edits_sha256"], tuple(Check.from_json(check) for check in data["checks"]))
        if data["passed"] is not ruling.passed:
            raise ValueError("a preset's ruling does not follow from its checks")
        return ruling


@dataclass(frozen=True)
class Verdict:
    """The gate's decision on one artefact.

    Attributes:
        state: ``judged``, or what was missing so that nothing could be judged.
        artefact_sha256: the bytes it is about; a verdict for other bytes counts for nothing.
        quality_sha256, equivalence_sha256: of the files the decision was made on.
        policy_text: the policy's file, so that the decision can be made again.
        baseline: what was read of the baseline, None without one.
        presets: the ruling on each steering preset of the bundle.
        judged_on: the day (UTC, ISO) that waivers were compared with.
        valid_until: last day (ISO) of the waiver that it rests on and that ends first; None when it rests on none.
    """

    state: State
    checks: tuple[Check, ...]
    policy_name: str
    policy_sha256: str
    policy_text: str
    model: str
    artefact_sha256: str
    quality_sha256: str
    equivalence_sha256: str
    baseline: Mapping[str, Any] | None
    waivers: tuple[Mapping[str, str], ...]
    judged_on: str
    valid_until: str | None
    presets: Mapping[str, PresetRuling] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True only if everything was there, something was checked, and no check failed."""
        return (
            self.state == "judged" and bool(self.checks) and not any(check.outcome == "fail" for check in self.checks)
        )

    @property
    def exit_code(self) -> int:
        """0 passed, 1 a check failed, 3 something was missing, so that it could not be judged."""
        if self.state != "judged":
            return 3
        return 0 if self.passed else 1

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "fail")

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "state": self.state,
            "policy": {"name": self.policy_name, "sha256": self.policy_sha256, "toml": self.policy_text},
            "subject": {
                "model": self.model,
                "artefact_sha256": self.artefact_sha256,
                "quality_sha256": self.quality_sha256,
                "equivalence_sha256": self.equivalence_sha256,
            },
            "baseline": self.baseline,
            "waivers": [dict(waiver) for waiver in self.waivers],
            "judged_on": self.judged_on,
            "valid_until": self.valid_until,
            "statistics": self._statistics(),
            "presets": {name: ruling.to_json() for name, ruling in self.presets.items()},
            "counts": {
                outcome: sum(check.outcome == outcome for check in self.checks) for outcome in get_args(Outcome)
            },
            "checks": [check.to_json() for check in self.checks],
        }

    def _statistics(self) -> dict[str, Any]:
        """Which comparisons rest on confidence bounds, and what follows for the error rates of all of them together."""
        on_bound = [check.name for check in self.checks if check.decided_on == "bound" and check.threshold is not None]
        return {
            "level": LEVEL,
            "decided_on_bound": on_bound,
            "multiple_comparisons": "none corrected: all must pass (intersection-union test), so a model "
            "beyond any one threshold passes "
            f"with a chance of at most {(1 - LEVEL) / 2:.3g}, however many are checked",
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """The inverse of ``to_json``.

        Raises:
            ValueError: if the form is not this version's, or ``passed`` does not follow from the checks.
        """
        try:
            if data["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {data['schema_version']!r} is not {SCHEMA_VERSION}")
            if data["state"] not in get_args(State):
                raise ValueError(f"unknown state {data['state']!r}")
            verdict = cls(
                state=data["state"],
                checks=tuple(Check.from_json(check) for check in data["checks"]),
                policy_name=data["policy"]["name"],
                policy_sha256=data["policy"]["sha256"],
                policy_text=data["policy"]["toml"],
                model=data["subject"]["model"],
                artefact_sha256=data["subject"]["artefact_sha256"],
                quality_sha256=data["subject"]["quality_sha256"],
                equivalence_sha256=data["subject"]["equivalence_sha256"],
                baseline=data["baseline"],
                waivers=tuple(data["waivers"]),
                judged_on=data["judged_on"],
                valid_until=data["valid_until"],
                presets={name: PresetRuling.from_json(ruling) for name, ruling in data["presets"].items()},
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"not a verdict: {error!r}") from error
        if hashlib.sha256(verdict.policy_text.encode()).hexdigest() != verdict.policy_sha256:
            raise ValueError("its policy does not match the hash")
        if data.get("passed") is not verdict.passed:
            raise ValueError(f"it says passed = {data.get('passed')!r}, its checks say {verdict.passed}")
        verdict._require_types()
        return verdict

    def _require_types(self) -> None:
        """ValueError if a field is of another type than its readers expect."""
        texts = [self.policy_name, self.policy_sha256, self.policy_text, self.model, self.artefact_sha256]
        texts += [self.quality_sha256, self.equivalence_sha256]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("not a verdict: a name or hash is not a text")
        if not all(isinstance(waiver, dict) for waiver in self.waivers):
            raise ValueError("not a verdict: a waiver is not an object")
        if self.baseline is not None and not (
            isinstance(self.baseline, dict) and isinstance(self.baseline.get("artefact_sha256"), str)
        ):
            raise ValueError("not a verdict: its baseline is not an object with a hash")
        for day in (self.judged_on, self.valid_until):
            if day is not None:
                date.fromisoformat(day if isinstance(day, str) else "")
