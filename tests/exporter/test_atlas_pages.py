"""The atlas: relations and effects against plain computations, pages that name what they should, and nothing that
comes from outside.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from _serving import make_bundle
from PIL import Image
from typer.testing import CliRunner

from elude.cli import app
from elude.exporter.atlas.charts import Series, heat_map, histogram
from elude.exporter.atlas.concept_map import Spot, concept_map
from elude.exporter.atlas.effects import class_effects
from elude.exporter.atlas.page_data import AtlasContent, class_lines, gather
from elude.exporter.atlas.page_views import concept_page, page_of
from elude.exporter.atlas.relations import shared_inputs, together
from elude.exporter.atlas.thumbnails import LADDER, encoded, encoding_for, is_tiny
from elude.exporter.atlas.token_places import Layout, marker
from elude.exporter.atlas.write_pages import MANY, AtlasSettings, write_pages
from elude.exporter.scoring.bundle_activity import activity_of, images_for
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.bundle import Bundle, LayerInfo
from elude.handlers.bundle.catalogue_schema import ConceptPortrait, ConceptRow, ImageRow, SubUnitRow, Top, UnitRow
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("atlas") / "bundle")


def png(side: int, colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 99, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def row(index: int, unit: int, part: int, name: str | None, maximum: float = 2.0) -> SubUnitRow:
    tops = (Top(0, 2, 2.0), Top(1, 1, 1.0)) if maximum > 0 else ()
    method = None if name is None else "labels"
    return SubUnitRow(
        index,
        "a.b",
        unit,
        part,
        0.5,
        0.5,
        0.1,
        0.1,
        maximum,
        0.5 + 0.1 * part,
        0.5,
        name,
        method,
        0.9 if name else None,
        tops,
    )


CONCEPTS = [ConceptRow(0, EVIL, 0.9, 0.75, (0, 1, 3)), ConceptRow(1, None, 1.0, None, (2,))]
PORTRAITS = {
    0: ConceptPortrait(0, (1.0, 0.5), (3, 0, 1, 4), ((1, -0.4),), (Top(1, 1, 0.9), Top(0, 2, 0.8))),
    1: ConceptPortrait(1, (-1.0, 0.0), (8, 0, 0, 0), ((0, -0.4),), ()),
}


def small(effects: bool = True, peak: bool = True) -> AtlasContent:
    """Three units: one split in two, one whole and never active, one whole."""
    rows = [row(0, 0, 0, "cat"), row(1, 0, 1, EVIL), row(2, 1, 0, None, 0.0), row(3, 2, 0, "cat")]
    units = [
        UnitRow("a.b", 0, 2, 0.4, rows[0].tops),
        UnitRow("a.b", 1, 1, None, ()),
        UnitRow("a.b", 2, 1, 0.5, rows[3].tops),
    ]
    images = {0: ImageRow(0, "x.png", EVIL, png(96, 200)), 1: ImageRow(1, "y.png", "cat", png(28, 10))}
    values = np.array([[1, 2, 0, 1.1], [3, 1, 0, 2.9], [2, 2, 0, 2.0], [0, 1, 0, 0.1]], np.float32)
    return AtlasContent(
        model=f"model {EVIL}",
        facts={"artefact": "0" * 64, "weights": "1" * 64, "layers": "a.b"},
        layers=(LayerInfo("a.b", "linear", 3, 4, (2, 1, 1), 0),),
        units=units,
        sub_units=rows,
        images=images,
        concepts=CONCEPTS,
        portraits=PORTRAITS,
        layout=Layout(28, 28, {"a.b": 5}),
        random=[0.3, 0.4],
        together=together(values, np.array([0, 0, 1, 2]), np.array([0.1, 0.1, 0.0, 0.1])) if peak else None,
        shared=((0, 3, 0.5),),
        effects=np.array([[1, -2, 0.5]] * 2 + [[np.nan] * 3] + [[0, 0, 0]], np.float32) if effects else None,
        concept_effects=np.array([[1, -2, 0.5], [np.nan] * 3], np.float32) if effects else None,
        classes=["one", EVIL, "three"] if effects else [],
        effect_images=3,
    )


class Page(HTMLParser):
    """Every address of a page, ids, headings, and images without a text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.scripts: list[str | None] = []
        self.mute = 0
        self.decoration = False  # thumbnails beside the name of what they show are said to be no content
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("href", "src") and value is not None]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.scripts += [found.get("src")] if tag == "script" else []
        self.decoration = self.decoration or (tag == "span" and found.get("aria-hidden") == "true")
        self.mute += tag == "img" and not (found.get("alt") or (self.decoration and found.get("alt") == ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self.decoration = False


def check(root: Path) -> list[Path]:
    pages = sorted(root.rglob("*.html"))
    parsed = {page: Page(page) for page in pages}
    for page, found in parsed.items():
        assert found.headings[0] == 1
        assert found.headings.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(found.headings, found.headings[1:], strict=False)), page
        assert len(set(found.ids)) == len(found.ids)
        assert found.mute == 0
        assert None not in found.scripts, "no script within a page"
        for address in found.addresses:
            assert ":" not in address and not address.startswith("/"), f"{page}: {address} leads out of the folder"  # noqa: PT018
            path, _, anchor = address.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page}: {address}"
            if anchor and target in parsed:
                assert anchor in parsed[target].ids, f"{page}: {address}"
    return pages


def test_pages_are_whole_and_nothing_leads_out(tmp_path: Path) -> None:
    index = write_pages(small(), tmp_path / "atlas")
    pages = check(index.parent)
    assert len(pages) == 2 + 3 + 1  # a concept of one sub-unit has no page of its own
    for page in pages:
        assert EVIL not in page.read_text(encoding="utf-8")
    text = index.read_text(encoding="utf-8")
    assert "of 3" in text
    assert re.search(r"Never active</dt><dd>1<", text)
    unit = (index.parent / page_of("a.b", 0)).read_text(encoding="utf-8")
    assert "comes apart into 2" in unit
    assert "MS-Score 0.400 as a unit, 0.550 as the mean of its sub-units" in unit
    assert "+1" in unit
    assert "−2" in unit
    assert "Never above 0" in (index.parent / page_of("a.b", 1)).read_text(encoding="utf-8")


def test_the_search_index_holds_every_sub_unit_as_data(tmp_path: Path) -> None:
    index = write_pages(small(), tmp_path / "atlas")
    text = (index.parent / "index.js").read_text(encoding="utf-8")
    found = json.loads(text.removeprefix("const ATLAS=").removesuffix(";\n"))
    assert found["layers"] == ["a.b"]
    assert [row[1:4] for row in found["rows"]] == [[0, 0, "cat"], [0, 1, EVIL], [1, 0, None], [2, 0, "cat"]]
    assert found["rows"][0][-1] == [0, 1]  # its images
    assert found["concepts"] == [[0, EVIL, 3, 0.75, [1, 0], 0], [1, None, 1, None, [], 2]]
    assert found["tiny"] == [1]
    assert "innerHTML" not in (index.parent / "search.js").read_text(encoding="utf-8")


def test_a_concept_leads_to_its_images_effects_relatives_and_sub_units(tmp_path: Path) -> None:
    root = write_pages(small(), tmp_path / "atlas").parent
    path = concept_page(CONCEPTS[0])
    assert path is not None
    found, text = Page(root / path), (root / path).read_text(encoding="utf-8")
    links = [address for address in found.addresses if address.startswith("../units/")]
    for row in (small().sub_units[index] for index in (0, 1, 3)):
        assert f"../{page_of(row.layer, row.unit)}#s{row.part}" in links
    assert text.count(">twin<") == 3  # the mark of two parts of unit 0, and what it means
    assert "Opposite" in text
    assert "Similar" not in text
    assert "images by the mean of its sub-units" in text
    unit = (root / page_of("a.b", 0)).read_text(encoding="utf-8")
    assert unit.count("says the same as") == 2
    assert f"../../{path}" in Page(root / page_of("a.b", 0)).addresses
    assert concept_page(CONCEPTS[1]) is None


def test_the_overview_leads_with_concepts_of_several_sub_units(tmp_path: Path) -> None:
    text = write_pages(small(), tmp_path / "atlas").read_text(encoding="utf-8")
    gallery = text[text.index("clearest concepts") : text.index("<details>")]
    assert gallery.count("<li") == 1
    assert "concepts/c0.html" in gallery
    assert text.index("Map of concepts") < text.index("How the units came apart")


def test_without_concepts_the_units_are_shown(tmp_path: Path) -> None:
    bare = replace(small(), concepts=(), portraits={}, concept_effects=None)
    index = write_pages(bare, tmp_path / "atlas")
    assert len(check(index.parent)) == 2 + 3
    assert "Map of concepts" not in index.read_text(encoding="utf-8")


def test_every_concept_on_the_map_is_a_link_that_says_what_it_is() -> None:
    spots = [Spot((0.0, 0.0), "a.html", f"one {EVIL}", "one", 9), Spot((1.0, 1.0), "b.html", "no name", None, 1)]
    drawn = concept_map([*spots, Spot((0.0, 0.01), "c.html", "two", "two", 4)], EVIL)
    assert EVIL not in drawn
    assert [drawn.count(f'href="{name}.html"') for name in "abc"] == [1, 1, 1]
    assert drawn.count("<title>") == 3
    assert drawn.count("<text") == 1  # the second name would cover the first
    assert float(drawn.split('class="unnamed" cx="')[1].split('"')[0]) > 900


def noisy(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_best_encoding_within_the_budget_is_taken() -> None:
    pngs = [noisy(seed) for seed in range(6)]
    sizes = [sum(len(encoded(png, step)) for png in pngs) for step in LADDER]
    assert sizes == sorted(sizes, reverse=True)
    for step, size in zip(LADDER, sizes, strict=True):
        assert encoding_for(pngs, size) == step
    assert encoding_for(pngs, sizes[2] - 1) == LADDER[3]
    assert encoding_for(pngs, 1) == LADDER[-1]  # as small as can be, even if that is too large
    assert encoding_for([], 1) == LADDER[0]


def test_thumbnails_become_smaller_but_never_larger() -> None:
    assert Image.open(io.BytesIO(encoded(png(96, 9), LADDER[-1]))).size == (LADDER[-1].side,) * 2
    assert Image.open(io.BytesIO(encoded(png(60, 9), LADDER[0]))).size == (60, 60)
    assert (is_tiny(png(48, 9)), is_tiny(png(49, 9))) == (True, False)


def test_where_there_are_many_sub_units_fewer_images_of_each_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = AtlasSettings(images_shown=2, images_of_many=1)
    for many, count in ((4, 2), (3, 1)):  # there are four sub-units: 4 are not many, where more than 3 are
        monkeypatch.setattr("elude.exporter.atlas.write_pages.MANY", many)
        index = write_pages(small(), tmp_path / str(many), settings)
        whole, *parts = (index.parent / page_of("a.b", 0)).read_text(encoding="utf-8").split("<article")
        assert whole.count("<img") == 2
        assert [part.count("<img") for part in parts] == [count, count]
    assert MANY < 6_000


def test_without_ms_scores_no_chart_is_drawn(tmp_path: Path) -> None:
    plain = small()
    bare = replace(
        plain,
        units=[replace(unit, ms_score=None) for unit in plain.units],
        sub_units=[replace(one, ms_score=None) for one in plain.sub_units],
        random=[],
    )
    text = write_pages(bare, tmp_path / "atlas").read_text(encoding="utf-8")
    assert "Not measured." in text
    assert 'aria-label=""' not in text


def test_thumbnails_are_shared_and_small_ones_kept_as_they_are(tmp_path: Path) -> None:
    index = write_pages(small(), tmp_path / "atlas")
    assert sorted(path.name for path in (index.parent / "images").iterdir()) == ["0.webp", "1.png"]
    assert (index.parent / "images" / "1.png").read_bytes() == png(28, 10)
    assert Image.open(index.parent / "images" / "0.webp").size == (96, 96)


def test_same_input_same_files_and_only_an_atlas_is_replaced(tmp_path: Path) -> None:
    one, other = write_pages(small(), tmp_path / "one").parent, write_pages(small(), tmp_path / "other").parent
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert all((one / path).read_bytes() == (other / path).read_bytes() for path in files)
    with pytest.raises(UsageError, match="already exists"):
        write_pages(small(), one)
    write_pages(small(), one, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="no atlas"):
        write_pages(small(), tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "one", "other"]


def test_without_images_it_says_what_is_missing(tmp_path: Path) -> None:
    index = write_pages(small(effects=False, peak=False), tmp_path / "atlas")
    check(index.parent)
    assert "Not measured: the atlas was made without images." in (index.parent / "relations.html").read_text(
        encoding="utf-8"
    )


def test_together_against_numpy() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((60, 3))
    peak = np.concatenate([base, base[:, :2] + 0.02 * rng.random((60, 2)), -np.ones((60, 1))], axis=1).astype(
        np.float32
    )
    parent = np.array([0, 1, 1, 2, 3, 4])
    found = together(peak, parent, np.linspace(0.1, 0.2, 6))
    expected = np.corrcoef(peak[:, :5].T)
    assert found.pairs[0][:2] in ((0, 3), (1, 4))
    for first, second, value in found.pairs:
        assert value == pytest.approx(expected[first, second], abs=1e-5)
        assert parent[first] != parent[second]
    assert found.partners[0][0][0] == 3
    assert found.partners[5] == ()
    assert 5 not in found.mapped
    np.testing.assert_allclose(found.matrix, expected[np.ix_(found.mapped, found.mapped)], atol=1e-5)


def test_shared_inputs_by_hand() -> None:
    # unit 0: s0 takes inputs 0, 1; s1 takes 2; input 3 is shared by both. Unit 1: s0 takes 0, s1 takes 1, 2; 3 shared.
    masks = np.array([[1, 1, 2, 3], [1, 2, 2, 3]], np.uint64)
    split = LayerSplit("x", np.array([2, 2]), masks, np.full(2, 0.5, np.float32), np.zeros((4, 4), np.float32))
    assert {(a, b): round(value, 4) for a, b, value in shared_inputs([split])} == {
        (0, 2): 0.5,
        (1, 3): 0.5,
        (0, 3): 0.3333,
    }
    whole = LayerSplit(
        "y", np.array([1, 1]), np.ones((2, 4), np.uint64), np.full(2, np.nan, np.float32), np.zeros((2, 4), np.float32)
    )
    assert shared_inputs([whole]) == ()


def test_effects_are_what_ablation_measures_one_by_one(bundle: Bundle) -> None:
    source = images_for(bundle, None)
    assert source is not None
    activity = activity_of(bundle, source, limit=12)
    effects = class_effects(bundle, activity, 2)
    assert effects is not None
    session, preprocess = GraphSession(bundle.path("model.onnx")), Preprocess.from_json(bundle.json("preprocess.json"))
    for index in (0, 7, 50):
        order = [
            image
            for image in np.argsort(-activity.peak[:, index], kind="stable")[:2]
            if activity.peak[image, index] > 0
        ]
        change = []
        for image in order:
            pixels = preprocess.normalise(activity.images.pixels(int(image), preprocess)[None])
            change.append(session.run(pixels).output[0] - session.run(pixels, [[Edit.ablate(index)]]).output[0])
        np.testing.assert_allclose(effects[index], np.mean(change, axis=0), atol=1e-5)
    assert np.nanmax(np.abs(effects)) > 0
    members = (0, 7)  # ablated together, where their sum is largest
    strength = activity.peak[:, members].sum(axis=1, keepdims=True)
    together_ablated = class_effects(bundle, activity, 1, subjects=[members], strength=strength)
    assert together_ablated is not None
    pixels = preprocess.normalise(activity.images.pixels(int(strength[:, 0].argmax()), preprocess)[None])
    without = session.run(pixels, [[Edit.ablate(index) for index in members]]).output[0]
    np.testing.assert_allclose(together_ablated[0], session.run(pixels).output[0] - without, atol=1e-5)
    assert class_effects(bundle, activity, 0) is None


def test_class_lines_take_the_ends_once() -> None:
    lines = class_lines(np.array([1.0, -4.0], np.float32), ["up", "down"])
    assert [(line["name"], line["value"], line["part"]) for line in lines] == [("up", 1.0, 25.0), ("down", -4.0, 100.0)]
    assert [line["name"] for line in class_lines(np.arange(9, dtype=np.float32), list("abcdefghi"), 2)] == [
        "i",
        "h",
        "b",
        "a",
    ]
    assert class_lines(np.full(3, np.nan, np.float32), list("abc")) == []


def test_charts_escape_and_count() -> None:
    drawn = histogram([Series(EVIL, "units", [0.1, 0.1, 0.9])], 0, 1, 2, label=EVIL)
    assert EVIL not in drawn
    assert drawn.count("<path") == 2
    cells = heat_map(np.array([[1, 0.5], [0.5, 1]], np.float32), ["a", EVIL], "map")
    assert EVIL not in cells
    assert cells.count("fill-opacity") == 2


def test_marker_of_a_token() -> None:
    layout = Layout(28, 28, {"a.b": 5})  # a class token and 2 x 2 places
    assert marker(Top(0, 4, 1.0), "a.b", layout) == (50, 50, 50, 50)
    assert marker(Top(0, 0, 1.0), "a.b", layout) is None
    assert marker(Top(0, 1, 1.0), "other", layout) is None


def test_the_command_on_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "atlas"
    done = CliRunner().invoke(
        app, ["atlas", str(bundle.root), "--out", str(out), "--max-images", "20", "--effect-images", "1"]
    )
    assert done.exit_code == 0, done.output
    pages = check(out)
    gathered = gather(bundle)
    concepts = list(out.glob("concepts/*.html"))  # grouped here: the catalogue of this bundle has none
    assert gathered.concepts == []
    assert concepts
    assert len(pages) == 2 + len(gathered.units) + len(concepts)
    assert gathered.together is None
