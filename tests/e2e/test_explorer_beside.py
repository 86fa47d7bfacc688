"""Two models beside each other in the explorer, with real clicks: what each answers, its concepts, its presets, the
link to the view.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from _browser import NEEDS_CHROMIUM
from _explorer import PORTRAITS, PORTRAYED, Visit, asked, exploring, visiting
from _serving import images, make_bundle

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.service import Service

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = [NEEDS_CHROMIUM, pytest.mark.slow]

SHOE = images(20)[13]
TEXT = base64.b64encode(SHOE).decode()
RENAMED = [replace(row, name=f"other {row.name}") for row in PORTRAYED]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    folder = tmp_path_factory.mktemp("beside")
    return make_bundle(folder / "first", PORTRAYED, PORTRAITS), make_bundle(folder / "second", RENAMED, PORTRAITS)


@pytest.fixture(scope="module")
def second(bundles: tuple[Bundle, Bundle]) -> Service:
    return Service.open(bundles[1].root)


@pytest.fixture(scope="module")
def address(bundles: tuple[Bundle, Bundle]) -> Iterator[str]:
    with exploring(bundles[0].root, "--beside", str(bundles[1].root)) as found:
        yield found


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    with visiting(browser, address) as opened:
        opened.open()
        opened.choose("mine.png", SHOE)
        yield opened


def strongest(service: Service) -> list[str]:
    answer = asked(service, "inspect", image=TEXT, top_k=5, heat_map="none")
    return [concept["name"] for concept in answer["concepts"]]


def column(visit: Visit, index: int) -> list[str]:
    """The second or third cell of each row of the table of both answers."""
    return visit.page.locator(f"#beside-prediction tbody td:nth-child({index})").all_inner_texts()  # type: ignore[no-any-return]


def percent(value: float) -> str:
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def test_both_models_answer_the_same_image_each_with_its_concepts(
    visit: Visit, second: Service, bundles: tuple[Bundle, Bundle]
) -> None:
    answer = asked(second, "predict", image=TEXT)
    label = next(iter(answer))
    visit.says("#beside-agreement", f"Both say “{label}”")
    heads = visit.page.locator("#beside-models h3").all_inner_texts()
    assert heads == [bundle.root.name for bundle in bundles]
    names = visit.page.locator("#beside-models > div:nth-child(2) li > p:first-child").all_inner_texts()
    assert names == strongest(second)
    assert all(name.startswith("other ") for name in names)
    assert visit.page.locator("#beside-models > div:nth-child(2) .thumbs img").count() == len(names)


def test_edits_change_the_first_and_presets_the_second(visit: Visit, second: Service) -> None:
    plain = {percent(value) for value in asked(second, "predict", image=TEXT).values()}
    visit.steer(0, -20)
    visit.page.wait_for_function("() => document.querySelector('#prediction table.steered')")
    visit.settle()
    assert set(column(visit, 3)) - {"–"} <= plain
    assert column(visit, 2) != column(visit, 3)
    visit.page.select_option("#beside-preset", "b")
    steered = asked(second, "steer", image=TEXT, preset="b", compare=False)["steered"]
    label = max(steered, key=steered.__getitem__)
    visit.says(f'#beside-prediction tr[data-label="{label}"] td:nth-child(3)', percent(steered[label]))
    assert {percent(value) for value in steered.values()} != plain


def test_the_link_names_the_preset_of_the_second(visit: Visit, browser: Any, address: str) -> None:
    visit.page.select_option("#beside-preset", "b")
    visit.page.wait_for_function("() => location.hash.includes('beside=b')")
    visit.settle()
    shown = column(visit, 3)
    with visiting(browser, address) as other:
        other.page.goto(visit.page.url)
        other.says("#caption", "mine.png")
        other.page.wait_for_selector("#beside-models li")
        other.settle()
        assert other.page.locator("#beside-preset").input_value() == "b"
        assert column(other, 3) == shown


def test_a_preset_that_the_second_does_not_have_is_told_with_its_name(
    visit: Visit, bundles: tuple[Bundle, Bundle]
) -> None:
    visit.page.goto(visit.page.url + "&beside=gone")
    visit.says("#message", bundles[1].root.name)
    visit.says("#message", "gone")
    assert visit.page.locator("#beside-prediction table").count() == 0
    assert all("404" in text or "400" in text for text in visit.complaints)
    visit.complaints.clear()


def test_no_width_needs_scrolling_sideways(visit: Visit) -> None:
    visit.page.wait_for_selector("#beside-models li")
    for width in (320, 390, 1024):
        visit.page.set_viewport_size({"width": width, "height": 800})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_preset_of_the_second_is_chosen_by_keyboard(visit: Visit) -> None:
    visit.page.focus("#beside-preset")
    visit.page.keyboard.press("ArrowDown")
    visit.page.wait_for_function("() => location.hash.includes('beside=a')")


def test_without_a_second_model_nothing_of_it_is_shown(browser: Any, bundles: tuple[Bundle, Bundle]) -> None:
    with exploring(bundles[0].root) as alone, visiting(browser, alone) as opened:
        opened.open()
        assert not opened.page.locator("#beside").is_visible()
