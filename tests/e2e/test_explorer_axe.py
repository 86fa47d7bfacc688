"""The explorer's accessibility by axe-core: the list, the pages of a sub-unit and of a concept, a comparison, two
models and a search, light and dark, wide and narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from _browser import NEEDS_CHROMIUM, violations
from _explorer import PORTRAITS, PORTRAYED, exploring
from _serving import make_bundle

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = [pytest.mark.network, NEEDS_CHROMIUM]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = make_bundle(tmp_path_factory.mktemp("explored") / "b", PORTRAYED, PORTRAITS).root
    with exploring(root, "--beside", str(root)) as found:
        yield found


def settle(page: Any) -> None:
    page.wait_for_selector("html:not([data-waiting])", state="attached")
    page.wait_for_timeout(300)  # colours that fade count as they are


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_found(browser: Any, address: str, axe: str, scheme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector("#parts li")
    page.wait_for_selector("#beside-models li")
    page.locator("#parts button.steer").first.click()
    page.locator("#edits input[type=range]").fill("-6")
    page.locator("#copy summary").click()
    settle(page)
    assert violations(page, axe) == []
    page.locator("#parts li h3 a").first.click()
    page.wait_for_selector("#page article")
    settle(page)
    assert violations(page, axe) == []
    page.go_back()
    page.wait_for_selector("#concept-rows a:visible")
    page.locator("#pin").click()
    page.wait_for_selector("#comparison table")
    page.locator("#find-flip").click()
    page.wait_for_selector("#flip .flip", timeout=60_000)
    page.locator("#concept-rows a").first.click()
    page.wait_for_selector("#page article.concept")
    settle(page)
    assert violations(page, axe) == []
    page.locator("#query").fill("concept")
    page.set_input_files("#file", {"name": "broken.png", "mimeType": "image/png", "buffer": b"broken"})
    page.wait_for_selector("#message p")
    settle(page)
    assert violations(page, axe) == []
    page.close()


def test_the_check_sees_a_violation(browser: Any, address: str, axe: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("#parts li")
    page.evaluate(
        "document.querySelector('label[for=query]').remove(); document.querySelector('#query').placeholder = ''"
    )
    assert any(found.startswith("label") for found in violations(page, axe))
    page.close()
