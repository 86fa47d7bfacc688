"""The explorer in headless Chromium with real clicks, on a bundle and on both servers: what it shows is what the
service answers.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from _browser import NEEDS_CHROMIUM
from _explorer import CONCEPTS, Visit, asked, exploring, listen, running, visiting
from _serving import images, make_bundle

from elude.handlers.bundle.bundle import Bundle
from elude.handlers.requests.edit_text import parse_edit
from elude.handlers.service import Service
from elude.handlers.torchserve.server import Server
from elude.handlers.web.app import application as web_application
from elude.model_store.archive import package

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = NEEDS_CHROMIUM

KEY = "the key of the tests"
LAYER = "blocks.5.mlp.fc2"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("explored") / "b", CONCEPTS)


@pytest.fixture(scope="module")
def service(bundle: Bundle) -> Service:
    return Service.open(bundle.root)


EVERYWHERE = pytest.mark.parametrize(
    "address", ["bundle", "web", pytest.param("torchserve", marks=pytest.mark.server)], indirect=True
)


@pytest.fixture(scope="module")
def address(
    request: pytest.FixtureRequest, bundle: Bundle, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with ExitStack() as stack:
        target, key = str(bundle.root), KEY
        behind = getattr(request, "param", "bundle")
        if behind == "web":
            listening, port = listen()
            stack.enter_context(running(web_application(service, KEY), listening))
            target = f"http://127.0.0.1:{port}"
        elif behind == "torchserve":
            server = stack.enter_context(
                Server(package(bundle, tmp_path_factory.mktemp("archive"), name="elude", version="1.0"))
            )
            target, key = f"http://127.0.0.1:{server.inference_port}", server.key("inference")
        yield stack.enter_context(exploring(target, ELUDE_TOKEN=key))


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    with visiting(browser, address) as opened:
        yield opened


@pytest.fixture(scope="module")
def example(service: Service) -> str:
    """The catalogue's one image, which the page begins with."""
    return str(asked(service, "feature", id=f"{LAYER}/u0.s0")["examples"][0]["png"])


@EVERYWHERE
def test_an_example_is_predicted_and_explained_as_the_service_does(
    visit: Visit, service: Service, example: str
) -> None:
    visit.open()
    visit.page.locator("#examples button").first.click()
    visit.settle()
    assert visit.shown("now") == pytest.approx(asked(service, "predict", image=example), abs=1e-6)
    ids = visit.page.eval_on_selector_all("#parts li", "rows => rows.map(row => row.dataset.id)")
    assert ids == [entry["id"] for entry in asked(service, "inspect", image=example, top_k=12)["sub_units"]]
    visit.page.get_by_role("button", name="Show more").click()
    visit.page.wait_for_selector("#parts li:nth-child(24)")


def test_by_effect_on_a_class_and_by_image(visit: Visit, service: Service, example: str) -> None:
    visit.open()
    visit.page.select_option("#order", "effect")
    visit.page.select_option("#target", "bag")
    visit.says("#explain-hint", "“bag”")
    visit.settle()
    expected = asked(service, "inspect", image=example, top_k=12, by="effect", target="bag")["sub_units"]
    assert visit.page.eval_on_selector_all("#parts li", "rows => rows.map(row => row.dataset.id)") == [
        entry["id"] for entry in expected
    ]
    visit.page.select_option("#order", "unusual")
    visit.says("#explain-hint", "probing image")
    visit.settle()
    expected = asked(service, "search", image=example, limit=12)["sub_units"]
    assert visit.page.eval_on_selector_all("#parts li", "rows => rows.map(row => row.dataset.id)") == [
        entry["id"] for entry in expected
    ]


def test_a_click_opens_the_page_of_a_sub_unit_which_can_be_shared(visit: Visit, service: Service) -> None:
    visit.open()
    row = visit.page.locator("#parts li").first
    identifier, name = row.get_attribute("data-id"), row.locator("h3").inner_text()
    row.get_by_role("link").click()
    visit.page.wait_for_selector("#page article")
    visit.settle()
    assert visit.page.locator("#page h2").inner_text() == name
    siblings = asked(service, "feature", id=identifier)["siblings"]
    assert visit.page.locator(".siblings li").count() == 1 + len(siblings)
    assert visit.page.locator(".tops button").count() == 1
    assert visit.page.evaluate("document.activeElement.id") == "page-title"
    shared = visit.page.url
    assert f"unit={identifier}" in shared
    visit.page.get_by_role("link", name="All sub-units").click()
    visit.page.wait_for_selector("#list:visible")
    visit.page.go_back()
    visit.page.wait_for_selector("#page:visible")
    visit.page.goto("about:blank")
    visit.open(shared.partition("/#")[2] and "#" + shared.partition("#")[2])
    assert visit.page.locator("#page h2").inner_text() == name


@EVERYWHERE
def test_sliders_steer_as_the_service_does(visit: Visit, service: Service, example: str) -> None:
    visit.open()
    first = visit.steer(0, -6)
    second = visit.steer(3, 0)
    visit.edited(f"{first}=scale:-6", f"{second}=ablate")
    edits = [{"id": first, "action": "scale", "value": -6}, {"id": second, "action": "ablate"}]
    answer = asked(service, "steer", image=example, edits=edits)
    assert {label: visit.shown("before")[label] for label in answer["unsteered"]} == pytest.approx(
        answer["unsteered"], abs=1e-6
    )
    assert {label: visit.shown("now")[label] for label in answer["steered"]} == pytest.approx(
        answer["steered"], abs=1e-6
    )
    assert set(visit.shown("now")) == set(answer["change"])
    assert answer["max_output_change"] > 0.01
    # strongest patches, another action, and an exact value
    card = visit.page.locator(f'#edits li[data-id="{first}"]')
    card.get_by_label("Where to edit").select_option("some")
    card.get_by_label("Number of strongest patches").fill("3")
    card.get_by_label("What to do").select_option("set")
    card = visit.page.locator(f'#edits li[data-id="{first}"]')
    card.get_by_label("Value for").fill("1.25")
    visit.edited(f"{first}=set:1.25@3", f"{second}=ablate")
    edits[0] = {"id": first, "action": "set", "value": 1.25, "patches": 3}
    answer = asked(service, "steer", image=example, edits=edits)
    assert {label: visit.shown("now")[label] for label in answer["steered"]} == pytest.approx(
        answer["steered"], abs=1e-6
    )
    # the texts to copy say the same, and the address brings it back
    preset = json.loads(visit.page.locator("#as-preset").input_value())["my preset"]
    assert preset == edits
    words = shlex.split(visit.page.locator("#as-command").input_value())
    assert [parse_edit(words[i + 1]) for i, word in enumerate(words) if word == "--edit"] == edits
    kept = visit.shown("now")
    visit.page.reload()
    visit.edited(f"{first}=set:1.25@3", f"{second}=ablate")
    assert visit.shown("now") == pytest.approx(kept, abs=1e-6)
    visit.page.get_by_role("button", name="Remove all edits").click()
    visit.page.wait_for_selector('#prediction[data-edits=""]')
    assert visit.page.locator("#edits li").count() == 0


def test_a_concept_is_found_steered_as_one_and_shared(visit: Visit, service: Service, example: str) -> None:
    visit.open()
    expected = asked(service, "inspect", image=example, top_k=12)["concepts"]
    rows = visit.page.locator("#concept-rows li")
    assert rows.evaluate_all("rows => rows.map(row => row.dataset.id)") == [entry["id"] for entry in expected]
    strengths = visit.page.locator("#concept-rows .strength").all_inner_texts()
    assert [int(text.split()[0]) for text in strengths] == pytest.approx(
        [100 * e["relative"] for e in expected], abs=0.51
    )
    visit.page.get_by_label("Search concepts and sub-units by name").fill("many")
    visit.says("#concepts-hint", "“many”")
    visit.settle()
    assert rows.locator("h3 a").all_inner_texts() == ["many parts"]
    rows.get_by_role("button", name="Steer").click()
    visit.edited("c0=scale:1")
    visit.says("#prediction .ineffective", "Nothing is changed yet")
    visit.page.locator('#edits li[data-id="c0"] input[type=range]').fill("-6")
    visit.edited("c0=scale:-6")
    edits = [{"concept": "c0", "action": "scale", "value": -6}]
    answer = asked(service, "steer", image=example, edits=edits)
    assert len(answer["edits"]) == 60
    assert answer["max_output_change"] > 0.01
    assert visit.page.locator("#prediction .ineffective").count() == 0
    shown = visit.shown("now")
    assert {label: shown[label] for label in answer["steered"]} == pytest.approx(answer["steered"], abs=1e-6)
    assert json.loads(visit.page.locator("#as-preset").input_value())["my preset"] == edits
    assert "--concept 'c0=scale:-6'" in visit.page.locator("#as-command").input_value()
    shared = visit.page.url
    visit.page.goto("about:blank")
    visit.open("#" + shared.partition("#")[2].replace("q=many", "q=nothing"))
    visit.edited("c0=scale:-6")
    visit.says('#edits li[data-id="c0"]', "many parts")  # asked by its identifier: no row of the list names it
    assert visit.shown("now") == pytest.approx(shown, abs=1e-6)


def test_a_steer_without_effect_says_so(visit: Visit, service: Service, example: str) -> None:
    identifier = asked(service, "inspect", image=example, top_k=1)["sub_units"][0]["id"]
    edits = [{"id": identifier, "action": "add", "value": 1e-12}]
    assert asked(service, "steer", image=example, edits=edits)["max_output_change"] < 1e-6
    visit.open(f"#edit={identifier}=add:1e-12")
    visit.edited(f"{identifier}=add:1e-12")
    visit.says("#prediction .ineffective", "No effect")


def test_the_latest_move_of_a_slider_wins(visit: Visit, service: Service, example: str) -> None:
    visit.open()
    identifier = visit.steer(0, 1)
    slider = visit.page.locator("#edits input[type=range]")
    slider.evaluate(
        "s => { for (const v of [...Array(60).keys()].map(i => i % 20 - 10).concat(7.5))"
        " { s.value = v; s.dispatchEvent(new Event('input', {bubbles: true})); } }"
    )
    visit.edited(f"{identifier}=scale:7.5")
    visit.settle()
    answer = asked(service, "steer", image=example, edits=[{"id": identifier, "action": "scale", "value": 7.5}])
    assert {label: visit.shown("now")[label] for label in answer["steered"]} == pytest.approx(
        answer["steered"], abs=1e-6
    )


def test_a_preset_of_the_bundle(visit: Visit, service: Service, example: str) -> None:
    visit.open()
    visit.page.select_option("#preset", "a")
    visit.page.wait_for_selector("#edits li:nth-child(2)")
    visit.settle()
    answer = asked(service, "steer", image=example, preset="a")
    assert {label: visit.shown("now")[label] for label in answer["steered"]} == pytest.approx(
        answer["steered"], abs=1e-6
    )


def test_everything_by_keyboard(visit: Visit) -> None:
    visit.open()
    visit.page.locator("#query").focus()
    for _ in range(30):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.classList.contains('steer')"):
            break
    identifier = visit.page.evaluate("document.activeElement.closest('[data-id]').dataset.id")
    visit.page.keyboard.press("Enter")  # the focus goes to the new slider
    for _ in range(4):
        visit.page.keyboard.press("ArrowRight")
    visit.edited(f"{identifier}=scale:1.4")
    visit.page.keyboard.press("Home")
    visit.edited(f"{identifier}=scale:-20")


@EVERYWHERE
def test_search_by_name(visit: Visit, service: Service) -> None:
    visit.open()
    visit.page.get_by_label("Search concepts and sub-units by name").fill("concept 7")
    visit.says("#explain-title", "Search")
    visit.says("#explain-hint", "“concept 7”")
    visit.settle()
    names = visit.page.locator("#parts h3").all_inner_texts()
    expected = [entry["name"] for entry in asked(service, "search", query="concept 7", limit=12)["sub_units"]]
    assert names == expected
    assert "concept 7" in names
    visit.page.get_by_label("Search concepts and sub-units by name").fill("zebra")
    visit.says("#explain-hint", "No sub-unit has “zebra”")
    assert visit.page.locator("#parts li").count() == 0


def test_a_file_is_chosen_and_another_dropped(visit: Visit, service: Service, tmp_path: Path) -> None:
    visit.open()
    first, second = images(20)[7], images(20)[13]
    visit.choose("mine.png", first)
    assert visit.shown("now") == pytest.approx(
        asked(service, "predict", image=base64.b64encode(first).decode()), abs=1e-6
    )
    drop(visit, second, "dropped.png")
    visit.says("#caption", "dropped.png")
    visit.settle()
    assert visit.shown("now") == pytest.approx(
        asked(service, "predict", image=base64.b64encode(second).decode()), abs=1e-6
    )


def drop(visit: Visit, data: bytes, name: str) -> None:
    make = (
        "([text, name]) => { const d = new DataTransfer(); const b = Uint8Array.from(atob(text), c => c.charCodeAt(0));"
    )
    transfer = visit.page.evaluate_handle(
        f"{make} d.items.add(new File([b], name)); return d; }}", [base64.b64encode(data).decode(), name]
    )
    visit.page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\x89PNG\r\n\x1a\n broken", "truncated"), (b"", "is empty"), (b"plain text", "not an image")],
)
def test_an_unreadable_file_is_told_and_changes_nothing(visit: Visit, data: bytes, words: str) -> None:
    visit.open()
    before = visit.shown("now")
    drop(visit, data, "broken.png")
    visit.page.wait_for_selector("#message p")
    assert words in visit.page.get_by_role("alert").inner_text()
    assert visit.shown("now") == before
    visit.page.get_by_role("button", name="Dismiss").click()
    assert visit.page.locator("#message p").count() == 0
    assert all("400" in text for text in visit.complaints)  # the browser notes the refusal itself
    visit.complaints.clear()


def test_names_and_addresses_cannot_bring_in_markup(visit: Visit) -> None:
    visit.open("#q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&unit=nonsense&order=drop&edit=x&edit=" + "y" * 3000)
    assert visit.page.locator("#explain-hint img, #message img").count() == 0
    assert "<img" in visit.page.locator("#explain-hint").inner_text()
    visit.choose("<b>x</b>.png", images(20)[7])


def test_an_unknown_sub_unit_in_the_address_is_told(visit: Visit) -> None:
    visit.open(f"#unit={LAYER}/u9999.s0")
    visit.page.wait_for_selector("#message p")
    assert "there is no such sub-unit" in visit.page.get_by_role("alert").inner_text()
    assert visit.page.locator("#list").is_visible()
    assert all("404" in text for text in visit.complaints)
    visit.complaints.clear()


@pytest.mark.parametrize("width", [320, 400, 1024])
def test_no_width_needs_scrolling_sideways(visit: Visit, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.open()
    visit.steer(0, -6)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.page.locator("#parts li").first.get_by_role("link").click()
    visit.page.wait_for_selector("#page article")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
