"""Size and first view of a full atlas of a made-up bundle: thumbnails, frames, names, class effects and relations
all there.

Example: OMP_NUM_THREADS=1 python -m benchmarks.atlas build/atlas-6144

What a ViT-B's last fc2 would give (768 units × 8 sub-units, 12 images each of 3,000, 1,000 classes
with names as long as ImageNet's), but of random numbers, as running a ViT-B for it takes hours.
Every second unit repeats the one before it for a part, so that concepts and shared inputs have
something to show. The first view is timed in Chromium, each time in a fresh process with nothing
cached.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elude.exporter.atlas.page_data import AtlasContent, relate
from elude.exporter.atlas.page_views import concept_page, page_of
from elude.exporter.atlas.relations import shared_inputs
from elude.exporter.atlas.token_places import Layout
from elude.exporter.atlas.write_pages import write_pages
from elude.exporter.naming.concept_portraits import portraits
from elude.exporter.naming.concepts import group
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.bundle import LayerInfo
from elude.handlers.bundle.catalogue_schema import ImageRow, SubUnitRow, Top, UnitRow

LAYER, INPUTS, CLASSES, SHOWN, TOKENS, ANSWERED = "blocks.11.mlp.fc2", 3072, 1000, 12, 197, 1000
NAME = 12  # mean letters of an ImageNet class's first name, about
CHROMIUM = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the atlas")
    parser.add_argument("--units", type=int, default=768)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--starts", type=int, default=3, help="fresh starts of Chromium a page; 0: do not time")
    settings = parser.parse_args()
    start = time.process_time()
    content = made_up(settings.units, settings.parts, settings.images)
    between = time.process_time()
    write_pages(content, settings.out)
    print(
        f"made up and related in {between - start:.1f} s of CPU time, written in {time.process_time() - between:.1f} s"
    )
    files = [path for path in settings.out.rglob("*") if path.is_file()]
    total, images = (
        sum(path.stat().st_size for path in some)
        for some in (files, [path for path in files if path.parent.name == "images"])
    )
    print(
        f"{len(content.sub_units)} sub-units: {total / 1e6:.1f} MB in {len(files)} files, "
        f"{images / 1e6:.1f} MB of it thumbnails"
    )
    pages = ["index.html", "relations.html", page_of(LAYER, settings.units // 2)]
    pages += [path for row in content.concepts[:1] if (path := concept_page(row))]
    several = sum(len(row.members) > 1 for row in content.concepts)
    print(f"{len(content.concepts)} concepts, {several} of several sub-units")
    for page in pages if settings.starts else ():
        painted, loaded = zip(*(first_view(settings.out / page) for _ in range(settings.starts)), strict=True)
        print(f"{page}: first content {_range(painted)}, loaded {_range(loaded)}")


def made_up(units: int, parts: int, images: int) -> AtlasContent:
    """A full atlas's content of random numbers, the same each time."""
    rng = np.random.default_rng(0)
    names = [
        "".join(rng.choice(list("abcdefghij klmnop"), max(3, int(rng.normal(NAME, 4))))).strip() or "x"
        for _ in range(CLASSES)
    ]
    rows_of_images = {i: ImageRow(i, f"{i}.jpg", names[i % CLASSES], _thumbnail(rng)) for i in range(images)}

    def tops() -> tuple[Top, ...]:
        chosen = rng.choice(images, SHOWN, replace=False)
        return tuple(Top(int(i), int(rng.integers(1, TOKENS)), float(rng.random() * 9)) for i in chosen)

    count = units * parts
    unit_rows = [UnitRow(LAYER, unit, parts, float(rng.beta(4, 6)), tops()) for unit in range(units)]
    rows = []
    for index in range(count):
        name = str(rng.choice(names)) if rng.random() < 0.7 else None
        method, score = (None, None) if name is None else ("labels", 0.8)
        rows.append(
            SubUnitRow(
                index,
                LAYER,
                index // parts,
                index % parts,
                0.3,
                1 / parts,
                float(rng.random() * 0.1),
                0.1,
                float(rng.random() * 9),
                float(rng.beta(6, 5)),
                1 / parts,
                name,
                method,
                score,
                tops(),
            )
        )
    peak = rng.random((ANSWERED, count), np.float32)
    for index in range(0, count, 16):  # a concept of about eight sub-units of other units, as of the embedded model
        alike = rng.choice(count, 8, replace=False)
        peak[:, alike] = peak[:, index, None] + 0.2 * rng.random((ANSWERED, 8), np.float32)
    masks = rng.integers(1, 2**parts, (units, INPUTS)).astype(np.uint64)
    for unit in range(1, units, 2):
        peak[:, unit * parts] = peak[:, (unit - 1) * parts] + 0.05 * rng.random(ANSWERED, np.float32)
        masks[unit, : INPUTS // 2] = masks[unit - 1, : INPUTS // 2]
    concepts = group(peak, {row.index: row.name for row in rows})
    portrayed = portraits(peak, rng.integers(1, TOKENS, peak.shape), concepts, SHOWN)
    zeros = np.zeros((count, INPUTS), np.float32)
    split = LayerSplit(LAYER, np.full(units, parts), masks, np.full(units, 0.3, np.float32), zeros)
    effects: NDArray[np.float32] = rng.normal(size=(count, CLASSES)).astype(np.float32)
    return AtlasContent(
        model="made-up ViT-B",
        facts={"artefact": "0" * 64, "weights": "1" * 64, "layers": LAYER},
        layers=(LayerInfo(LAYER, "linear", units, INPUTS, (parts,) * units, 0),),
        units=unit_rows,
        sub_units=rows,
        images=rows_of_images,
        concepts=concepts,
        portraits={portrait.number: portrait for portrait in portrayed},
        layout=Layout(224, 224, {LAYER: TOKENS}),
        random=[float(value) for value in rng.beta(5, 6, count)],
        together=relate(peak, rows),
        shared=shared_inputs([split]),
        effects=effects,
        concept_effects=rng.normal(size=(len(concepts), CLASSES)).astype(np.float32),
        classes=names,
        effect_images=3,
    )


def chromium() -> str | None:
    """The browser's program; None: Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def first_view(page: Path) -> tuple[float, float]:
    """Seconds from the start of the navigation to the first content, and until all is loaded, in a fresh Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium(), args=CHROMIUM)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(page.resolve().as_uri())
        opened.wait_for_function(f"{PAINT} > 0 && {LOADED} > 0")
        found = float(opened.evaluate(PAINT)) / 1000, float(opened.evaluate(LOADED)) / 1000
        browser.close()
    return found


def _thumbnail(rng: np.random.Generator) -> bytes:
    """A noisy picture of 96 pixels, which packs about as badly as a photograph."""
    base = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
    noisy = np.asarray(base).astype(int) + rng.integers(-18, 18, (96, 96, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _range(seconds: tuple[float, ...]) -> str:
    return f"{min(seconds):.2f} to {max(seconds):.2f} s, median {statistics.median(seconds):.2f} s"


if __name__ == "__main__":
    main()
