"""The report says what is there and what is not, escapes what came from outside, and needs nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from _reports import LAYER, make, measured, png

from elude.exporter.atlas.held_out import HELD_OUT, HeldOut
from elude.exporter.scoring.split_features import of_split_units
from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.catalogue import Catalogue, ImageRow, SubUnitRow, Top, UnitRow, write_catalogue
from elude.handlers.errors import BundleError
from elude.quality.dimensions import DIMENSIONS
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.gate.judge import judge
from elude.quality.gate.verdict_formats import verdict_json
from elude.quality.policies.policy import load_policy
from elude.quality.report import render, write_report
from elude.quality.report.atlas import unit_cards
from elude.quality.report.breakdowns import breakdowns, contributions
from elude.quality.report.concepts import gallery
from elude.quality.report.numbers import axis_end, measure_charts, small
from elude.quality.scores.pool import Pool
from elude.quality.scores.quba import quba_score


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def outline(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Outline()
    parser.feed(page)
    return parser.tags


def test_a_whole_report(tmp_path: Path):
    bundle = measured(make(tmp_path / "b"))
    verdict = judge(bundle, load_policy(), today=date(2026, 1, 1))
    assert verdict.passed, verdict.failures
    bundle = write_report(bundle.add({"verdict.json": verdict_json(verdict)}))
    page = Bundle.open(bundle.root).path("report.html").read_text()
    for words in (
        "Passed the gate",
        "0, bit for bit",
        "on 100 % of the images",
        "0.876",
        "not measured",
        "no cue-conflict images",
        "0.880 – 0.920",
        f"{LAYER}/u0",
        "The frame marks",
    ):
        assert words in page
    assert f"{LAYER}/u1<" not in page  # a whole unit has nothing to show beside it


def test_the_page_is_self_contained_accessible_and_escapes(tmp_path: Path):
    page = render(measured(make(tmp_path / "b")))
    tags = outline(page)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    assert "<script" not in page
    assert "<b>" not in page
    assert "tiny &lt;i&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "url(" not in page
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert images
    assert all(attributes["alt"] for attributes in images)
    headings = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(attributes["class"] == "tiny" for attributes in images)
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert dict(tags)["html"]["lang"] == "en"


def test_the_gallery_is_led_by_the_clearest_and_has_a_seeded_fair_sample_beside_it(tmp_path: Path):
    bundle = make(tmp_path / "b")
    catalogue = Catalogue.of(bundle)
    shown = gallery(catalogue, None)
    assert shown is not None
    # c0 has several sub-units; c2 is purer than it, but has one; c1 has no name; c3 is a namesake of c0
    assert [card.identifier for card in shown.chosen] == ["c0", "c2"]
    assert shown == gallery(catalogue, None)
    drawn = [gallery(catalogue, None, shown=1, seed=seed) for seed in range(300)]
    counts = [sum(one is not None and one.random[0].identifier == f"c{n}" for one in drawn) for n in range(4)]
    assert sum(counts) == 300
    assert min(counts) > 45  # 75 expected; less has a probability of about 1 in 10,000
    catalogue.close()
    page = render(bundle)
    assert page.count('<span class="pill">chosen</span>') == 2
    assert page.count('<span class="pill">random</span>') == 4
    assert "&lt;b&gt;heels" in page


def test_held_out_images_are_shown_where_there_are_some_and_the_page_says_which(tmp_path: Path):
    bundle = make(tmp_path / "b")
    assert "images that the split was made from, those" in text_of(render(bundle))
    tops = {number: (Top(7, 1, 0.5),) for number in range(4)}
    pictures = {7: ImageRow(7, "new.png", "<i>new</i>", png(3))}
    held_out = HeldOut(60, (0.25, 0.5, 0.75, None), (2,), (1, 3), 0, tops, pictures)
    shown = bundle.add({HELD_OUT: json.dumps(held_out.to_json()).encode()})
    page = render(shown)
    gallery_part = page[page.index('id="concepts"') : page.index('id="split"')]
    assert "60 held-out images" in gallery_part
    assert gallery_part.count("&lt;i&gt;new&lt;/i&gt;, activation 0.50") == 2 * 3  # alt and title of three cards
    assert "75 % of one class, 75 % on the split" in gallery_part  # of c2
    assert "50 % are of one class, 62 % on the images of the split" in text_of(page)  # means
    assert page.count('<span class="pill">chosen</span>') == 1
    assert page.count('<span class="pill">random</span>') == 2
    with pytest.raises(BundleError):
        render(bundle.add({HELD_OUT: b'{"images": 60}'}))


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", page).split())


def test_the_first_sentence_says_what_was_done_and_how_it_was_judged(tmp_path: Path):
    def first(bundle: Bundle) -> str:
        text = re.search(r'<p class="summary">(.*?)</p>', render(bundle), re.DOTALL)
        assert text
        return text[1]

    bundle = measured(make(tmp_path / "b"))
    assert first(bundle).startswith("2 of 3 units")
    assert "no verdict" in first(bundle)
    passed = bundle.add({"verdict.json": verdict_json(judge(bundle, load_policy(), today=date(2026, 1, 1)))})
    assert "passed the gate" in first(passed)
    worse = measured(make(tmp_path / "worse"), accuracy=0.5)
    verdict = judge(worse, load_policy())
    stopped = first(worse.add({"verdict.json": verdict_json(verdict)}))
    assert "stopped" in stopped
    assert "below the policy" in stopped


def test_markers_lie_on_the_token(tmp_path: Path):
    # 5 tokens over 8 × 8 pixels: one prefix token, then 2 × 2; token 1 is top left, token 4 bottom right
    page = render(make(tmp_path / "b"))
    assert 'class="marker" style="left:0.0%;top:0.0%;width:50.0%;height:50.0%"' in page
    assert 'class="marker" style="left:50.0%;top:50.0%;width:50.0%;height:50.0%"' in page
    assert 'class="marker"' not in render(make(tmp_path / "c", measures=False))


def test_a_bundle_without_anything_else_says_so(tmp_path: Path):
    page = render(make(tmp_path / "b", measures=False, with_catalogue=False))
    for words in ("No verdict", "has not been judged yet", "Nothing was measured yet", "holds no images to show"):
        assert words in page


def test_without_measures_the_catalogues_scores_are_shown(tmp_path: Path):
    page = render(make(tmp_path / "b", measures=False))
    assert "0.800" in page  # mean of 0.7 and 0.9
    assert "No random control" in page


def test_a_failed_verdict_is_shown_with_its_reason(tmp_path: Path):
    bundle = measured(make(tmp_path / "b"), accuracy=0.5)
    bundle = bundle.add({"verdict.json": verdict_json(judge(bundle, load_policy()))})
    page = render(bundle)
    assert "Stopped by the gate" in page
    assert "accuracy 0.48 (lower bound of 0.5) is below the policy&#39;s limit 0.82." in page


@pytest.mark.parametrize("change", ["artefact_sha256", "quality_sha256", "passed"])
def test_a_verdict_for_other_bytes_is_not_shown_as_one(tmp_path: Path, change: str):
    bundle = measured(make(tmp_path / "b"))
    document = judge(bundle, load_policy()).to_json()
    if change == "passed":
        document["passed"] = not document["passed"]
    else:
        document["subject"][change] = hashlib.sha256(b"other").hexdigest()
    page = render(bundle.add({"verdict.json": json.dumps(document).encode()}))
    assert "No verdict" in page
    assert "Passed the gate" not in page


def test_every_number_leads_to_its_definition(tmp_path: Path):
    tags = outline(render(measured(make(tmp_path / "b"))))
    targets = {str(attributes["href"]) for tag, attributes in tags if tag == "a"}
    names = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert targets == {f"#def-{dimension}" for dimension in DIMENSIONS}
    assert {target[1:] for target in targets} <= names
    regions = [attributes for _, attributes in tags if "scroll" in str(attributes.get("class")).split()]
    assert regions
    assert all(
        region.get("tabindex") == "0" and (region.get("aria-label") or region.get("aria-labelledby"))
        for region in regions
    )


def test_pool_and_baseline_are_drawn_beside_it(tmp_path: Path):
    bundle = measured(make(tmp_path / "b"))
    before = QualityReport.from_json(bundle.json("quality.json") | unlike(bundle, accuracy=0.7, params_m=0.5))
    pool = Pool.of("releases", {"a": {"accuracy": 0.6, "params_m": 0.4}, "b": {"accuracy": 0.95, "params_m": 1.5}})
    page = render(bundle, pool=pool, baseline=before)
    assert "2 models of “releases”" in page
    assert 'class="pool" style="left:60.0%;width:35.0%"' in page  # accuracy, 0.6 to 0.95 of 1
    assert 'class="pool" style="left:20.0%;width:55.0%"' in page  # parameters, 0.4 to 1.5 of 2
    assert 'class="base" style="left:70.0%"' in page
    assert "+0.200 better" in page
    assert "+0.100 worse" in page  # of parameters, fewer are better
    assert "Accuracy 0.900 on a scale from 0 to 1; baseline 0.700; better than 1 of 2" in page
    assert "not comparable" not in page
    other = replace(before, suite={**before.suite, "sha256": "d" * 64})
    assert "not comparable" in render(bundle, baseline=other)
    assert "not comparable" not in render(bundle)


def unlike(bundle: Bundle, **values: float) -> dict[str, Any]:
    """The dimensions of a measured bundle with other values, and intervals of 0.04 around them."""
    dimensions = bundle.json("quality.json")["dimensions"]
    for name, value in values.items():
        interval = dimensions[name]["interval"] and [value - 0.02, value + 0.02]
        dimensions[name] |= {"value": value, "interval": interval}
    return {"dimensions": dimensions}


def test_each_number_says_on_how_many_images_it_rests(tmp_path: Path):
    bundle = measured(make(tmp_path / "b"))
    quality = bundle.json("quality.json")
    quality["dimensions"]["corruption_robustness"]["measured_on"]["sets"]["images"]["images"] = 217
    page = render(bundle.add({"quality.json": json.dumps(quality).encode()}))
    rows = re.findall(r'<td class="num" data-label="Images">([^<]*)</td>', page)
    assert ">Images</th>" in page
    assert (rows.count("1000"), rows.count("217")) == (4, 1)


def test_the_terms_of_the_score_and_the_tables(tmp_path: Path):
    bundle = measured(make(tmp_path / "b"))
    quality = bundle.json("quality.json")
    score = quba_score({"accuracy": 0.9, "params_m": 0.6}).to_json()
    quality["score"] = {**score, "rank": 3, "of": 326, "nearest": []}
    quality["dimensions"]["accuracy"]["tables"] = {"accuracy_per_class": {"bag": 1.0, "<b>": 0.25, "boot": None}}
    page = render(bundle.add({"quality.json": json.dumps(quality).encode()}))
    assert "Partial QUBA score" in page
    assert "rank 3 of 326" in page
    terms = contributions(quality)
    assert sum(term.contribution for term in terms) == pytest.approx(score["total"])
    assert max(term.width for term in terms) == 50
    (table,) = breakdowns(quality)
    assert table.rows == (("<b>", 0.25, 25.0), ("bag", 1.0, 100.0))
    assert "&lt;b&gt;" in page


@pytest.mark.parametrize(
    ("values", "dimension", "end"),
    [
        ([0.3], "accuracy", 1),
        ([1.04], "object_focus", 1.1),
        ([0.03, 0.07], "calibration_error", 0.1),
        ([0.9], "calibration_error", 1),
        ([5.3, 25.6], "params_m", 50),
        ([0.68], "params_m", 1),
        ([None], "accuracy", 0),
        ([0.0], "params_m", 1),
    ],
)
def test_axes_end_at_round_numbers(values: list[float | None], dimension: str, end: float):
    assert axis_end(values, dimension) == pytest.approx(end)


def test_small_numbers_read_well():
    assert small(0) == "0"
    assert small(None) == "–"
    assert small(1.5e-6) == "1.5\u202f×\u202f10⁻⁶"


def test_the_units_shown_are_those_with_the_largest_gain_among_the_well_supported(tmp_path: Path):
    images = [ImageRow(i, f"{i}.png", None, png(i)) for i in range(8)]
    eight = tuple(Top(i, 1, 8.0 - i) for i in range(8))
    # unit: parts, gain, share of instances on which its sub-units are active, top images of each
    kinds = {
        0: (2, 0.1, 0.5, eight),
        1: (2, 0.4, 0.5, eight),
        2: (7, 0.9, 0.5, eight),
        3: (2, 0.8, 0.001, eight),
        4: (2, 0.7, 0.5, eight[:3]),
    }
    units = [UnitRow(LAYER, unit, parts, 0.1, eight) for unit, (parts, *_) in kinds.items()]
    rows = []
    for unit, (parts, gain, active, tops) in kinds.items():
        for part in range(parts):
            rows.append(
                SubUnitRow(
                    len(rows), LAYER, unit, part, 0.5, 0.5, active, 0.1, 5.0, 0.1 + gain, 0.5, None, None, None, tops
                )
            )
    write_catalogue(tmp_path / "catalogue.sqlite", images, units, rows)
    opened = Catalogue(tmp_path / "catalogue.sqlite")
    order = [card.identifier.rsplit("u", 1)[1] for card in unit_cards(opened, None)]
    opened.close()
    assert order == ["1", "0", "2", "3", "4"]


def test_the_means_are_over_the_features_of_split_units_of_all_layers_as_in_the_atlas() -> None:
    layers = (LayerInfo("a", "linear", 2, 4, (3, 1), 0), LayerInfo("b", "linear", 1, 4, (2,), 4))

    def family(units: list[float | None], parts: list[float | None]) -> dict[str, Any]:
        rows = {"units": units, "sub_units": parts, "random": parts}
        return {name: {"each": {"ms": row}, "ms_mean_of_split_units": 0.0} for name, row in rows.items()}

    measures = {
        "layers": {"a": family([0.1, 0.9], [0.2, 0.3, None, 0.9]), "b": family([0.5], [0.6, 0.8])},
    }
    (chart,) = measure_charts(measures, {}, layers)
    assert [bar.score for bar in chart.bars] == pytest.approx([0.3, 0.475, 0.475])
    assert of_split_units(measures, layers, "random", "ms") == [0.2, 0.3, 0.6, 0.8]
    assert of_split_units({"layers": {"a": 3}}, layers, "units", "ms") == []
