"""How fast the explorer answers in Chromium: the first view, and each move of a slider, of a ViT-S with random weights.

    python -m benchmarks.explorer

The bundle is that of ``benchmarks.serving``, its last MLP layer split at random, with a catalogue and concepts of ten
sub-units each. ``elude explore`` runs as a process of its own; the times are the page's own marks: from the start of
the navigation to the first prediction (each in a new page), and from a slider's move to the steered prediction.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.atlas import CHROMIUM, chromium
from benchmarks.serving import make_bundle
from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.catalogue import ConceptRow, ImageRow, SubUnitRow, Top, UnitRow, write_catalogue

TARGETS = {"first view": 1.0, "slider": 0.15}  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--pages", type=int, default=8, help="new pages for the first view")
    parser.add_argument("--moves", type=int, default=18, help="moves of a slider, at most 18")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(settings.model, Path(folder) / "bundle", add_catalogue)
        with exploring(bundle.root) as address:
            for name, seconds in measured(address, settings.pages, settings.moves).items():
                median, worst = statistics.median(seconds), sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]
                print(f"{name}: median {median:.3f} s, 95 % within {worst:.3f} s, target {TARGETS[name]} s")


def add_catalogue(folder: Path, layer: LayerInfo) -> None:
    """Write a catalogue: images of noise, concepts of ten sub-units."""
    rng = np.random.default_rng(0)
    images = [ImageRow(i, f"{i}.png", None, _noise(rng)) for i in range(60)]
    tops = [tuple(Top(int(i), 1, 2.0) for i in rng.choice(60, 9, replace=False)) for _ in range(layer.sub_units)]
    units = [UnitRow(layer.name, unit, parts, None, tops[unit]) for unit, parts in enumerate(layer.parts)]
    rows = []
    for index in range(layer.sub_units):
        unit, part = layer.parent(index)
        facts = (index, layer.name, unit, part, 0.5, 0.5, 0.1, 0.0, 2.0, None, 0.5, None, None, None)
        rows.append(SubUnitRow(*facts, tops[index]))
    count = layer.sub_units // 10
    concepts = [ConceptRow(i, f"concept {i}", 0.9, None, tuple(range(10 * i, 10 * i + 10))) for i in range(count)]
    write_catalogue(folder / "catalogue.sqlite", images, units, rows, concepts)


@contextmanager
def exploring(bundle: Path) -> Iterator[str]:
    """``elude explore`` until the block ends; gives its address."""
    command = [sys.executable, "-m", "elude", "explore", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            line = running.stdout.readline()
            address = re.search(r"http://\S+", line)
            if address is None:
                raise SystemExit(f"elude explore said: {line}")
            yield address[0]
        finally:
            running.send_signal(signal.SIGINT)


def measured(address: str, pages: int, moves: int) -> dict[str, Sequence[float]]:
    """Seconds of each first view, and of each answer to a slider."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium(), args=CHROMIUM)
        views = [first_view(browser, address) for _ in range(pages + 1)][1:]  # the first fills the caches of all
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        page.locator("#concept-rows button.steer").first.click()
        answers = [answer(page, 1.5 + move) for move in range(moves)]
        browser.close()
    return {"first view": views, "slider": answers}


def first_view(browser: Any, address: str) -> float:
    """Seconds from the start of the navigation to the first prediction."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.wait_for_selector("#prediction tbody tr")
    page.wait_for_selector("html:not([data-waiting])", state="attached")
    seconds = float(page.evaluate("performance.getEntriesByName('first prediction')[0].startTime")) / 1000
    page.close()
    return seconds


def answer(page: Any, value: float) -> float:
    """Seconds from the move of the slider to the prediction."""
    page.wait_for_selector("html:not([data-waiting])", state="attached")
    page.evaluate("performance.clearMeasures()")
    page.locator("#edits input[type=range]").fill(f"{value:g}")
    page.wait_for_selector(f'#prediction[data-edits$="=scale:{value:g}"]')
    return float(page.evaluate("performance.getEntriesByName('answer').at(-1).duration")) / 1000


def _noise(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    base = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    base.resize((96, 96), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


if __name__ == "__main__":
    main()
