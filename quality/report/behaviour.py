"""The section on the nine dimensions, which the report and the comparison of two results share; and the page of that
comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from elude.exporter.atlas.token_places import shared_style
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.image_answers import ImageAnswers
from elude.quality.gate.evidence import mapping, number
from elude.quality.report.breakdowns import breakdowns, contributions, severity_charts
from elude.quality.report.definitions import DEFINITIONS
from elude.quality.report.mistakes import NOT_KEPT, mistakes
from elude.quality.report.numbers import decimal, dimension_lines, small
from elude.quality.scores.compare import Comparison, compare
from elude.quality.scores.pool import Pool

_FOLDER = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Escapes everything that came from outside; the style sheet is ours and holds no closing tag."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"small": small, "decimal": decimal}
    return found


def style() -> str:
    """The style sheet of these pages."""
    return shared_style() + (_FOLDER / "style.css").read_text(encoding="utf-8")


def quality_section(quality: Mapping[str, Any], *, pool: Pool | None, baseline: QualityReport | None) -> dict[str, Any]:
    """What ``quality.html.j2`` needs.

    Args:
        quality: a quality.json, read with distrust.
        pool: other models to show beside it.
        baseline: the measurements of an earlier model.

    Raises:
        UsageError: there is a baseline, and ``quality`` cannot be compared with it.
    """
    comparison = compare(baseline, QualityReport.from_json(quality)) if baseline is not None and quality else None
    before = None if baseline is None else baseline.to_json()
    lines = dimension_lines(quality, pool, before, comparison.changes if comparison else ())
    return {
        "lines": lines,
        "measured_count": sum(line.measured is not None for line in lines),
        "compared": any(line.original is not None for line in lines),
        "score": mapping(quality.get("score")),
        "score_total": number(mapping(quality.get("score")).get("total")),
        "suite": mapping(quality.get("suite")),
        "definitions": DEFINITIONS,
        "pool": pool,
        "baseline": before,
        "same_suite": comparison is None or comparison.same_suite,
        "contributions": contributions(quality),
        "breakdowns": breakdowns(quality),
        "severity_charts": severity_charts(quality),
    }


def mistakes_section(
    answers: ImageAnswers | None,
    problem: str,
    *,
    before: ImageAnswers | None = None,
    reports: tuple[QualityReport, QualityReport] | None = None,
) -> dict[str, Any]:
    """What ``mistakes.html.j2`` needs; ``problem`` says why there are no ``answers``, the others as for
    :func:`~elude.quality.report.mistakes.mistakes`.
    """
    shown = None if answers is None else mistakes(answers, before=before, reports=reports)
    return {"mistakes": shown, "mistakes_problem": problem}


def comparison_page(
    comparison: Comparison,
    first: QualityReport,
    second: QualityReport,
    *,
    answers: tuple[ImageAnswers | None, ImageAnswers | None] = (None, None),
) -> str:
    """A page without scripts or links elsewhere: the second of two results, drawn beside the first.

    Args:
        comparison: of both.
        first: the baseline.
        second: the other.
        answers: to single images, as far as they were kept.
    """
    section = quality_section(second.to_json(), pool=None, baseline=first)
    section |= mistakes_section(answers[1], NOT_KEPT, before=answers[0], reports=(first, second))
    verdicts = [change.verdict for change in comparison.changes if not change.factor]
    counts = {
        verdict: verdicts.count(verdict)
        for verdict in ("better", "worse", "within noise", "same", "unknown", "not comparable", "not measured")
    }
    return (
        environment()
        .get_template("compare.html.j2")
        .render(**section, style=style(), comparison=comparison, counts=counts)
    )
