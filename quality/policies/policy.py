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
from elude.quality.policies import declaration
from elude.quality.policies.declaration import CLAIMS, SCHEMA_VERSION, factors_of, limit_key, read, rule_keys
from elude.quality.toml_tables import Table

__all__ = ["CLAIMS", "DEFAULT_POLICY", "Policy", "load_policy", "parse_policy"]
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
        min_images: fewest images it may rest on; the policy's own number if None.
        factor: of the dimension, that the rule is about; empty for the dimension itself.
    """

    dimension: str
    limit: float | None = None
    max_drop: float | None = None
    max_drop_relative: float | None = None
    severity: Severity = "fail"
    required: bool = True
    decide_on: DecideOn = "point"
    min_images: int | None = None
    factor: str = ""

    @property
    def name(self) -> str:
        """``accuracy``, or ``adversarial_robustness.pgd_1`` for a factor: unique in its policy."""
        return f"{self.dimension}.{self.factor}" if self.factor else self.dimension

    @property
    def compares(self) -> bool:
        """Whether the rule needs a baseline."""
        return self.max_drop is not None or self.max_drop_relative is not None


@dataclass(frozen=True)
class ClassRule:
    """By how much the accuracy of any one class may be below the baseline's.

    Attributes:
        max_drop: in accuracy, absolute.
        min_images: classes with fewer images are not judged; the verdict says how many.
        decide_on: bound: every class must be shown not to drop further, which needs images of each.
    """

    max_drop: float
    min_images: int = 1
    severity: Severity = "fail"
    decide_on: DecideOn = "bound"


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
    """A whole policy.

    Attributes:
        text, sha256: written into every verdict, so that the decision can be made again.
        min_images: fewest images that a dimension may rest on, unless its rule says another number.
        budget, seed: that the measurements must have been made with; a budget of None is all images.
    """

    name: str
    description: str
    text: str
    sha256: str
    dimensions: tuple[DimensionRule, ...]
    claims: Mapping[str, float]
    disentangled: Tolerances
    served: Tolerances
    classes: ClassRule | None = None
    score: ScoreRule | None = None
    baseline_required: bool = True
    min_images: int = 1
    suite_sha256: str | None = None
    budget: int | None = None
    seed: int = 0
    presets: PresetRule = PresetRule()

    @property
    def compares(self) -> bool:
        """Whether anything is compared with a baseline."""
        return self.classes is not None or any(rule.compares for rule in self.dimensions)


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
    head, suite_values = read(top, declaration.TOP), read(suite, declaration.SUITE)
    policy = Policy(
        name=head["name"],
        description=head["description"] or "-",
        text=text,
        sha256=hashlib.sha256(content).hexdigest(),
        dimensions=tuple(rule for key in rules.keys for rule in _rules(rules.table(key), key)),
        claims=_claims(lossless.table("claims")),
        disentangled=_tolerances(lossless.table("disentangled")),
        served=_tolerances(lossless.table("served")),
        classes=_classes(top.table("classes")) if top.has("classes") else None,
        score=_score(top.table("score")) if top.has("score") else None,
        baseline_required=read(baseline, declaration.BASELINE)["required"],
        min_images=suite_values["min_images"],
        suite_sha256=suite_values["sha256"],
        budget=suite_values["budget"],
        seed=suite_values["seed"],
        presets=PresetRule(**read(presets, declaration.PRESETS)),
    )
    for table in (baseline, suite, lossless, presets, top):
        table.finish()
    return policy


def _rules(table: Table, dimension: str) -> list[DimensionRule]:
    """The rule of a dimension, and those of its factors."""
    factors = table.table("factors") if factors_of(dimension) and table.has("factors") else None
    rule = _rule(table, dimension)
    rules = [] if rule is None else [rule]
    for factor in factors_of(dimension) if factors is not None else ():
        if factors is not None and factors.has(factor):
            of_factor = _rule(factors.table(factor), dimension, factor)
            rules += [] if of_factor is None else [of_factor]
    if factors is not None:
        factors.finish()
        if not factors.keys:
            raise factors.error(None, "names no factor", f"Name some of {', '.join(factors_of(dimension))}.")
    if not rules or (rule is None and factors is None):
        keys = ", ".join((limit_key(dimension), "max_drop"))
        raise table.error(None, "this rule checks nothing", f"Set {keys} or max_drop_relative.")
    return rules


def _rule(table: Table, dimension: str, factor: str = "") -> DimensionRule | None:
    """The rule of a table; None if it checks nothing itself, which only a dimension with factors may."""
    # A limit on the good side ("accuracy at most") would let a worse model pass where a better one fails.
    wanted, other = ("min", "max") if HIGHER_IS_BETTER[dimension] else ("max", "min")
    if table.has(other):
        better = "higher" if HIGHER_IS_BETTER[dimension] else "lower"
        raise table.error(other, f"{better} is better here, so only {wanted!r} can be set", f"Write {wanted} = ….")
    values = read(table, rule_keys(dimension))
    rule = DimensionRule(dimension, values.pop(wanted), factor=factor, **values)
    table.finish()
    if rule.limit is not None or rule.compares:
        return rule
    if factor:
        raise table.error(None, "this rule checks nothing", f"Set {wanted}, max_drop or max_drop_relative.")
    return None


def _classes(table: Table) -> ClassRule:
    rule = ClassRule(**read(table, declaration.CLASSES))
    table.finish()
    return rule


def _score(table: Table) -> ScoreRule:
    weights = table.table("weights")
    values = read(table, declaration.SCORE)
    named = {key: value for key, value in read(weights, declaration.WEIGHTS).items() if value is not None}
    rule = ScoreRule(values["min"], values["severity"], values["allow_partial"], named or None)
    weights.finish()
    table.finish()
    if rule.weights is not None and sum(rule.weights.values()) == 0:
        raise weights.error(None, "all weights are 0")
    return rule


def _claims(table: Table) -> dict[str, float]:
    claims = read(table, declaration.CLAIM_KEYS)
    table.finish()
    return claims


def _tolerances(table: Table) -> Tolerances:
    values = read(table, declaration.tolerance_keys())
    default, exempt = values.pop("default"), values.pop("exempt")
    tolerances = Tolerances({key: value for key, value in values.items() if value is not None}, default, exempt)
    table.finish()
    for key in tolerances.exempt:
        if key in tolerances.named:
            raise table.error("exempt", f"{key} is exempt and has a tolerance")
    return tolerances
