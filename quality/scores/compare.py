"""Two reports side by side: dimension by dimension, as rows for a terminal and as a self-contained page with a plot. Loads no torch."""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from handlers.errors import UsageError
from quality.dimensions import DIMENSIONS, HIGHER_IS_BETTER
from quality.evaluation.report_data import QualityReport

_WIDTH, _ROW, _LEFT = 720, 46, 200


@dataclass(frozen=True)
class Change:
    """One dimension of both.

    Attributes:
        first, second: values, None where not measured.
        difference: second - first.
        interval: 95 % interval of the difference, None where a value has none.
        verdict: ``better``, ``worse`` or ``within noise``; ``unknown`` without an interval; ``same``; ``not measured``.
    """

    dimension: str
    first: float | None
    second: float | None
    difference: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Of two reports; ``same_suite`` tells whether their numbers may be compared at all."""

    first: str
    second: str
    same_suite: bool
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "changes": [asdict(change) for change in self.changes]}


def read_report(path: str | Path) -> QualityReport:
    """A ``quality.json``, or that of a bundle's folder.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    path = Path(path)
    path = path / "quality.json" if path.is_dir() else path
    try:
        return QualityReport.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise UsageError(f"There is no quality report at {path}: {error}.", "Run elude evaluate first.") from error


def compare(first: QualityReport, second: QualityReport, names: tuple[str, str] | None = None) -> Comparison:
    """How ``second`` differs from ``first``.

    Both intervals are added as squares around their middles (Zou & Donner 2008), as if the images were other ones: on the same images the
    truth is more certain than this says.
    """
    changes = []
    for dimension in DIMENSIONS:
        a, b = first.dimensions.get(dimension), second.dimensions.get(dimension)
        if a is None or b is None:
            changes.append(Change(dimension, a.value if a else None, b.value if b else None, None, None, "not measured"))
            continue
        difference = b.value - a.value
        interval = None
        if a.interval is not None and b.interval is not None:
            middle = sum(b.interval) / 2 - sum(a.interval) / 2
            half = math.hypot((a.interval[1] - a.interval[0]) / 2, (b.interval[1] - b.interval[0]) / 2)
            interval = (middle - half, middle + half)
        changes.append(Change(dimension, a.value, b.value, difference, interval, _verdict(dimension, difference, interval)))
    labels = names or (str(first.subject["model"]), str(second.subject["model"]))
    return Comparison(*labels, first.suite.get("sha256") == second.suite.get("sha256"), tuple(changes))


def _verdict(dimension: str, difference: float, interval: tuple[float, float] | None) -> str:
    if difference == 0:
        return "same"
    gain = difference if HIGHER_IS_BETTER[dimension] else -difference
    if dimension == "params_m":  # counted, not sampled
        return "better" if gain > 0 else "worse"
    if interval is None:
        return "unknown"
    if interval[0] <= 0 <= interval[1]:
        return "within noise"
    return "better" if (interval[0] > 0) == HIGHER_IS_BETTER[dimension] else "worse"


def rows(comparison: Comparison) -> dict[str, str]:
    """Dimension to one line of text, for a terminal."""
    found = {}
    for change in comparison.changes:
        numbers = f"{_text(change.first)} → {_text(change.second)}"
        if change.difference is not None:
            numbers += f"   {change.difference:+.4f}"
        if change.interval is not None:
            numbers += f"   95 % in [{change.interval[0]:+.4f}, {change.interval[1]:+.4f}]"
        found[change.dimension] = f"{numbers}   {change.verdict}"
    return found


def page(comparison: Comparison, first: QualityReport, second: QualityReport) -> str:
    """An HTML page without scripts or links elsewhere: a plot of both with their intervals, and the table."""
    bars = []
    shown = [d for d in DIMENSIONS if d in first.dimensions and d in second.dimensions]
    for row, dimension in enumerate(shown):
        pair = first.dimensions[dimension], second.dimensions[dimension]
        top = max([1.0] + [max(result.value, *(result.interval or (0.0,))) for result in pair])
        y = row * _ROW + 10
        bars.append(f'<text x="{_LEFT - 8}" y="{y + 20}" text-anchor="end">{dimension}</text>')
        for place, (result, style) in enumerate(zip(pair, ("a", "b"), strict=True)):
            at = y + 4 + place * 15
            scale = (_WIDTH - _LEFT - 70) / top
            bars.append(f'<rect class="{style}" x="{_LEFT}" y="{at}" width="{max(0.0, result.value) * scale:.1f}" height="12"/>')
            if result.interval is not None:
                low, high = (_LEFT + max(0.0, end) * scale for end in result.interval)
                bars.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{at + 6}" y2="{at + 6}"/>')
            bars.append(f'<text class="n" x="{_WIDTH - 60}" y="{at + 10}">{result.value:.4f}</text>')
    lines = "".join(
        f"<tr><td>{change.dimension}</td><td>{'higher' if HIGHER_IS_BETTER[change.dimension] else 'lower'}</td>"
        f"<td>{_text(change.first)}</td><td>{_text(change.second)}</td>"
        f"<td>{'' if change.difference is None else f'{change.difference:+.4f}'}</td>"
        f"<td>{'' if change.interval is None else f'{change.interval[0]:+.4f} … {change.interval[1]:+.4f}'}</td>"
        f'<td class="{change.verdict.replace(" ", "-")}">{change.verdict}</td></tr>'
        for change in comparison.changes
    )
    a, b = html.escape(comparison.first), html.escape(comparison.second)
    warning = "" if comparison.same_suite else "<p><strong>The suites differ: the numbers are not comparable.</strong></p>"
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{a} and {b}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }}
table {{ border-collapse: collapse }} td, th {{ padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #d8dee6 }}
.a {{ fill: #7a8ba3 }} .b {{ fill: #1f6f8b }} line {{ stroke: #1c2430; stroke-width: 2 }}
text {{ font-size: 13px }} .n {{ font-size: 11px }}
.better {{ color: #1b7a3d }} .worse {{ color: #b3261e }} .key {{ display: inline-block; width: 1em; height: 1em; vertical-align: -2px }}
</style></head><body><h1>{a} and {b}</h1>{warning}
<p><span class="key" style="background:#7a8ba3"></span> {a} &nbsp; <span class="key" style="background:#1f6f8b"></span> {b};
lines are 95 % intervals; each row has its own scale.</p>
<svg viewBox="0 0 {_WIDTH} {len(shown) * _ROW + 20}" role="img" aria-label="Dimensions of both models">{"".join(bars)}</svg>
<table><thead><tr><th>dimension</th><th>better</th><th>{a}</th><th>{b}</th><th>difference</th><th>95 % interval</th><th></th></tr></thead>
<tbody>{lines}</tbody></table></body></html>
"""


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
