"""Concepts in the explorer with real clicks: found, opened, steered until the answer flips, shared, compared."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from _browser import NEEDS_CHROMIUM
from _explorer import PORTRAITS, PORTRAYED, Visit, asked, exploring, visiting
from _serving import images, make_bundle

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.service import Service

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = NEEDS_CHROMIUM

SHOE = images(20)[13]
TEXT = base64.b64encode(SHOE).decode()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("explored") / "b", PORTRAYED, PORTRAITS)


@pytest.fixture(scope="module")
def service(bundle: Bundle) -> Service:
    return Service.open(bundle.root)


@pytest.fixture(scope="module")
def address(bundle: Bundle) -> Iterator[str]:
    with exploring(bundle.root) as found:
        yield found


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    with visiting(browser, address) as opened:
        opened.open()
        opened.choose("mine.png", SHOE)
        yield opened


def steered(service: Service, edits: list[dict[str, Any]]) -> dict[str, float]:
    answer: dict[str, float] = asked(service, "steer", image=TEXT, edits=edits, compare=False)["steered"]
    return answer


def first(answer: dict[str, float]) -> str:
    return next(iter(answer))


def flipping(service: Service) -> tuple[str, float]:
    """A concept's name and a gain within the slider's range that flip the answer."""
    plain = first(asked(service, "predict", image=TEXT))
    for row in PORTRAYED:
        for value in (-20.0, 20.0, -10.0, 10.0):
            if first(steered(service, [{"concept": row.id, "action": "scale", "value": value}])) != plain:
                return str(row.name), value
    raise AssertionError("no concept flips the answer within the slider's range")


def test_a_concept_is_found_opened_steered_to_a_flip_and_shared(
    visit: Visit, service: Service, browser: Any, address: str
) -> None:
    name, value = flipping(service)
    plain = first(visit.shown("now"))
    visit.page.get_by_label("Search concepts and sub-units by name").fill(name)
    visit.says("#concepts-hint", name)
    visit.settle()
    visit.page.locator("#concept-rows").get_by_role("link", name=name).click()
    visit.page.wait_for_selector("#page article.concept")
    visit.settle()
    assert visit.page.locator("#page h2").inner_text() == name
    visit.page.locator("#page .heading").get_by_role("button", name="Steer").click()
    visit.page.locator("#edits input[type=range]").fill(str(value))
    identifier = next(row.id for row in PORTRAYED if row.name == name)
    visit.edited(f"{identifier}=scale:{value:g}")
    now = visit.shown("now")
    assert max(now, key=now.__getitem__) != plain
    visit.says("#carries", "carries this image")
    shared = visit.page.url
    with visiting(browser, address) as other:
        other.page.goto(shared)
        other.edited(f"{identifier}=scale:{value:g}")
        other.page.wait_for_selector("#page article.concept")
        other.settle()
        assert other.shown("now") == pytest.approx(now, abs=1e-6)
        assert other.page.locator("#page h2").inner_text() == name
        other.says("#caption", "mine.png")


def test_the_page_of_a_concept_shows_what_the_service_says(visit: Visit, service: Service) -> None:
    visit.page.goto(visit.page.url + "&unit=c2")
    visit.page.wait_for_selector("#page article.concept")
    visit.settle()
    concept, here = asked(service, "concept", id="c2"), asked(service, "inspect", image=TEXT, concept="c2", top_k=100)
    relative = here["concepts"][0]["relative"]
    visit.says("#page .strength", f"{round(100 * relative)} %")
    assert visit.page.locator("#page .bin").count() == len(concept["histogram"])
    line = float(visit.page.locator("#page .here").get_attribute("x1") or "nan") / 320
    assert line == pytest.approx(min(relative, 1), abs=1e-6)
    assert visit.page.locator("#page .crops button").count() == len(concept["examples"])
    links = visit.page.locator("#page .relatives a").evaluate_all("links => links.map(link => link.dataset.unit)")
    assert links == [other["id"] for other in [*concept["similar"], *concept["opposite"]]]
    change = asked(service, "steer", image=TEXT, edits=[{"concept": "c2", "action": "ablate"}], top_k=10)["change"]
    label = max(change, key=lambda name: abs(change[name]))
    word = "promotes" if change[label] < 0 else "suppresses"
    visit.says(f'#page .effects tr[data-label="{label}"]', word)
    visit.page.locator("#page .relatives a").first.click()
    visit.page.wait_for_selector(f'#page article[data-id="{links[0]}"]')


def test_the_search_for_few_edits_reports_what_the_service_answers_and_can_be_undone(
    visit: Visit, service: Service
) -> None:
    label = first(asked(service, "predict", image=TEXT))
    visit.page.get_by_role("button", name="Which few edits flip").click()
    visit.page.wait_for_selector("#flip .flip", timeout=60_000)
    visit.settle()
    edits = json.loads(visit.page.locator("#as-preset").input_value())["my preset"]
    assert 0 < len(edits) <= 4
    answer = first(steered(service, edits))
    assert visit.page.locator("#flip .flip").get_attribute("data-flipped") == str(answer != label).lower()
    visit.says("#flip p", answer)
    assert visit.page.locator("#flip ol li").count() == len(edits)
    visit.page.locator("#undo-flip").click()
    visit.page.wait_for_selector('#prediction[data-edits=""]')
    assert visit.page.locator("#edits li").count() == 0


def test_two_images_and_two_presets_stand_side_by_side(visit: Visit, service: Service) -> None:
    visit.page.get_by_role("button", name="Keep for comparison").click()
    visit.page.wait_for_selector("#comparison table")
    other = images(20)[7]
    visit.choose("other.png", other)
    answers = [asked(service, "predict", image=base64.b64encode(data).decode()) for data in (SHOE, other)]
    row = visit.page.locator(f'#comparison table >> nth=0 >> tr[data-label="{first(answers[1])}"] td')
    values = [answer.get(first(answers[1])) for answer in answers]
    assert row.all_inner_texts() == ["–" if value is None else percent(value) for value in values]
    visit.page.get_by_role("button", name="Keep this one instead").click()
    visit.page.select_option("#preset", "a")
    visit.says("#comparison", "preset a")
    visit.says("#comparison", "not steered")
    visit.page.get_by_role("button", name="Stop comparing").click()
    assert visit.page.locator("#comparison table").count() == 0


def percent(value: float) -> str:
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def test_a_large_image_is_not_in_the_link_and_the_page_says_so(visit: Visit) -> None:
    visit.choose("large.png", SHOE + b"\0" * 30_000)
    visit.says("#carries", "does not carry this image (31 kB)")
    assert "data=" not in visit.page.url


def test_a_cut_link_is_told(visit: Visit) -> None:
    visit.page.goto("about:blank")
    visit.page.goto(f"{visit.address}#data=A")
    visit.page.wait_for_selector("#message p")
    assert "may have been cut" in visit.page.get_by_role("alert").inner_text()


def test_everything_of_a_concept_by_keyboard(visit: Visit) -> None:
    visit.page.locator("#concept-rows a").first.focus()
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#page article.concept")
    visit.settle()
    assert visit.page.evaluate("document.activeElement.id") == "page-title"
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.dataset.steer") is not None
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("Home")
    visit.page.wait_for_selector('#prediction[data-edits$="=scale:-20"]')


@pytest.mark.parametrize("width", [320, 390, 1024])
def test_no_width_needs_scrolling_sideways(visit: Visit, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.page.get_by_role("button", name="Keep for comparison").click()
    visit.page.wait_for_selector("#comparison table")
    visit.page.locator("#concept-rows a").first.click()
    visit.page.wait_for_selector("#page article.concept")
    visit.settle()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
