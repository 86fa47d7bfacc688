"""The static pages' accessibility by axe-core: report, comparison, and the atlas's four kinds of page; light and
dark, wide and narrow.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _browser import NEEDS_CHROMIUM, violations
from _reports import make, measured, png, with_answers
from _serving import make_bundle
from typer.testing import CliRunner

from elude.cli import app
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.dimensions.result import DimensionResult
from elude.quality.evaluation.image_answers import ImageAnswers
from elude.quality.report import render
from elude.quality.report.behaviour import comparison_page
from elude.quality.scores.compare import compare

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = [pytest.mark.network, NEEDS_CHROMIUM]
SEVERE = ("(serious)", "(critical)")
PAGES = ["report", "compare", "index", "concept", "unit", "relations"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → file; the atlas is one of the embedded model with class effects and relations."""
    root = tmp_path_factory.mktemp("pages")
    bundle, atlas = make_bundle(root / "bundle"), root / "atlas"
    limits = ["--max-images", "40", "--effect-images", "1"]
    done = CliRunner().invoke(app, ["atlas", str(bundle.root), "--out", str(atlas), *limits])
    assert done.exit_code == 0, done.output
    found = {
        "index": atlas / "index.html",
        "relations": atlas / "relations.html",
        "concept": next(atlas.glob("concepts/*.html")),
        "unit": next(atlas.glob("units/*/u0.html")),
    }
    numbers = np.arange(20, dtype=np.int32)
    answers = ImageAnswers(
        tuple(f"{n}.png" for n in numbers),
        ("bag", "boot", "a class with a long name"),
        numbers % 3,
        numbers // 3 % 3,
        np.linspace(0.4, 1, 20, dtype=np.float32),
        {int(n): png(int(n)) for n in numbers[10:]},
    )
    report = with_answers(measured(make(root / "reported")), answers)
    before = QualityReport.from_json(report.json("quality.json"))
    page = render(report, baseline=before, baseline_answers=replace(answers, predicted=(numbers + 1) // 3 % 3))
    (root / "report.html").write_text(page, encoding="utf-8")
    results = {
        "accuracy": DimensionResult(0.8, True, 100, (0.77, 0.83)),
        "calibration_error": DimensionResult(0.05, False, 100, (0.04, 0.06)),
    }
    first = QualityReport(
        {"kind": "onnx", "model": "one", "artefact_sha256": None},
        {"name": "x", "sha256": "s"},
        results,
        None,
        None,
        {},
        {},
    )
    second = replace(first, dimensions=results | {"accuracy": DimensionResult(0.9, True, 100, (0.87, 0.93))})
    (root / "compare.html").write_text(comparison_page(compare(first, second), first, second), encoding="utf-8")
    return found | {"report": root / "report.html", "compare": root / "compare.html"}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_severe_is_found_and_nothing_overflows(
    browser: Any, axe: str, pages: dict[str, Path], name: str
) -> None:
    for scheme in ("light", "dark"):
        for width in (400, 1280):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.goto(pages[name].as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
            if name == "index":
                page.locator("#query").fill("concept")
                page.wait_for_selector("#results li")
            found = violations(page, axe)
            assert [one for one in found if any(impact in one for impact in SEVERE)] == [], f"{scheme}, {width} pixels"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.close()


@pytest.mark.parametrize(
    ("name", "fault", "rule"),
    [
        ("unit", "document.querySelector('img').removeAttribute('alt')", "image-alt (critical)"),
        ("report", "document.documentElement.removeAttribute('lang')", "html-has-lang (serious)"),
        ("index", "document.querySelector('.lead').style.color = '#eee'", "color-contrast (serious)"),
    ],
)
def test_the_check_sees_a_planted_fault(
    browser: Any, axe: str, pages: dict[str, Path], name: str, fault: str, rule: str
) -> None:
    page = browser.new_page(color_scheme="light")
    page.goto(pages[name].as_uri())
    page.evaluate(fault)
    assert any(found.startswith(rule) for found in violations(page, axe))
    page.close()
