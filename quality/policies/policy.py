"""The policy: what a release has to prove, read from a versioned TOML file and refused when anything in it is
unclear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elude.handlers.errors import UsageError
from elude.handlers.files import read_plain
from elude.quality.dimensions import DIMENSIONS, HIGHER_IS_BETTER
from elude.quality.toml_tables import Table

SCHEMA_VERSION = 1
CLAIMS = ("sums", "rewrite", "runtime")
DEFAULT_POLICY = Path(__file__).parent / "default.toml"

Severity = Literal["fail", "warn"]
DecideOn = Literal["point", "bound"]


@dataclass(frozen=True)
class DimensionRule:
    """What one dimension has to reach.

    Attributes:
        limit: the smallest value of a dimension where higher is better, the largest where lower is better.
        max_drop: how much worse than the baseline it may be, in the dimension's own unit.
        max_drop_relative: the same as a fraction of the baseline's value.
        required: a missing measurement fails; otherwise it warns.
        decide_on: the point estimate, or the pessimistic end of its confidence interval.
    """

    dimension: str
    limit: float | None = None
    max_drop: float | None = None
    max_drop_relative: float | None = None
    severity: Severity = "fail"
    required: bool = True
    decide_on: DecideOn = "point"

    @property
    def compares(self) -> bool:
        """Whether the rule needs a baseline."""
        return self.max_drop is not None or self.max_drop_relative is not None


@dataclass(frozen=True)
class ScoreRule:
    """What the QUBA score has to reach; ``weights`` (empty: the report's own) must cover every dimension it uses."""

    limit: float
    severity: Severity = "fail"
    allow_partial: bool = False
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Tolerances:
    """Largest absolute difference per dimension between the original and a rewritten form of it.

    ``named`` dimensions must be measured on both sides; any other measured one may differ by
    ``default``, unless exempt.
    """

    named: Mapping[str, float]
    default: float = 0.0
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True)
class PresetRule:
    """How steering presets are judged: by the policy's dimensions but ``exempt``, each compared with the unsteered
    model.

    A preset that fails is never served; with ``severity`` fail it stops the whole release too.
    """

    severity: Severity = "warn"
    exempt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """A whole policy;

    ``text`` and its ``sha256`` are written into every verdict, so that the decision can be made
    again.
    """

    name: str
    description: str
    text: str
    sha256: str
    dimensions: tuple[DimensionRule, ...]
    claims: Mapping[str, float]
    disentangled: Tolerances
    served: Tolerances
    score: ScoreRule | None = None
    baseline_required: bool = True
    min_images: int = 1
    suite_sha256: str | None = None
    presets: PresetRule = PresetRule()

    @property
    def compares(self) -> bool:
        return any(rule.compares for rule in self.dimensions)


def load_policy(path: Path | str = DEFAULT_POLICY) -> Policy:
    """Read a policy file; without a path, the embedded model's.

    Raises:
        UsageError: if it cannot be read or anything in it is unknown, contradictory or out of range.
    """
    try:
        content = read_plain(path)
    except OSError as error:
        raise UsageError(
            f"The policy {path} cannot be read: {error.strerror}.", "Name an existing TOML file."
        ) from error
    return parse_policy(content, str(path))


def parse_policy(content: bytes, file: str = "policy.toml") -> Policy:
    """Parse the bytes of a policy file; ``file`` is its name in messages.

    Raises:
        UsageError: as ``load_policy``.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8: {error}.", "Save it as UTF-8.") from error
    top = Table.parse(text, file)
    if top.integer("schema_version") != SCHEMA_VERSION:
        raise top.error("schema_version", f"this version reads schema_version {SCHEMA_VERSION} only")
    baseline, suite, lossless, presets = (top.table(name) for name in ("baseline", "suite", "lossless", "presets"))
    rules = top.table("dimensions")
    unknown = [key for key in rules.keys if key not in DIMENSIONS]
    if unknown:
        raise rules.error(unknown[0], "is not a dimension", f"Dimensions: {', '.join(DIMENSIONS)}.")
    if not rules.keys:
        raise top.error(
            None, "no [dimensions.…] table: such a policy would pass anything", "Name at least one dimension."
        )
    policy = Policy(
        name=top.text("name"),
        description=top.text("description", "-"),
        text=text,
        sha256=hashlib.sha256(content).hexdigest(),
        dimensions=tuple(_dimension(rules.table(key), key) for key in rules.keys),
        claims=_claims(lossless.table("claims")),
        disentangled=_tolerances(lossless.table("disentangled")),
        served=_tolerances(lossless.table("served")),
        score=_score(top.table("score")) if top.has("score") else None,
        baseline_required=baseline.boolean("required", True),
        min_images=suite.integer("min_images", 1, low=1),
        suite_sha256=suite.sha256("sha256") if suite.has("sha256") else None,
        presets=PresetRule(_severity(presets, "warn"), presets.texts("exempt", DIMENSIONS)),
    )
    for table in (baseline, suite, lossless, presets, top):
        table.finish()
    return policy


def _dimension(table: Table, dimension: str) -> DimensionRule:
    # A limit on the good side ("accuracy at most") would let a worse model pass where a better one fails.
    wanted, other = ("min", "max") if HIGHER_IS_BETTER[dimension] else ("max", "min")
    if table.has(other):
        better = "higher" if HIGHER_IS_BETTER[dimension] else "lower"
        raise table.error(other, f"{better} is better here, so only {wanted!r} can be set", f"Write {wanted} = ….")
    rule = DimensionRule(
        dimension,
        limit=table.optional_number(wanted),
        max_drop=table.optional_number("max_drop", low=0.0),
        max_drop_relative=table.optional_number("max_drop_relative", low=0.0, high=1.0),
        severity=_severity(table),
        required=table.boolean("required", True),
        decide_on="bound" if table.choice("decide_on", ("point", "bound"), "point") == "bound" else "point",
    )
    table.finish()
    if rule.limit is None and not rule.compares:
        raise table.error(None, "this rule checks nothing", f"Set {wanted}, max_drop or max_drop_relative.")
    return rule


def _score(table: Table) -> ScoreRule:
    weights = table.table("weights")
    rule = ScoreRule(
        limit=table.number("min"),
        severity=_severity(table),
        allow_partial=table.boolean("allow_partial", False),
        weights={key: weights.number(key, low=0.0) for key in DIMENSIONS if weights.has(key)} or None,
    )
    weights.finish()
    table.finish()
    if rule.weights is not None and sum(rule.weights.values()) == 0:
        raise weights.error(None, "all weights are 0")
    return rule


def _claims(table: Table) -> dict[str, float]:
    claims = {claim: table.number(claim, low=0.0) for claim in CLAIMS}
    table.finish()
    return claims


def _tolerances(table: Table) -> Tolerances:
    tolerances = Tolerances(
        named={key: table.number(key, low=0.0) for key in DIMENSIONS if table.has(key)},
        default=table.optional_number("default", low=0.0) or 0.0,
        exempt=table.texts("exempt", DIMENSIONS),
    )
    table.finish()
    for key in tolerances.exempt:
        if key in tolerances.named:
            raise table.error("exempt", f"{key} is exempt and has a tolerance")
    return tolerances


def _severity(table: Table, default: Severity = "fail") -> Severity:
    return "warn" if table.choice("severity", ("fail", "warn"), default) == "warn" else "fail"
