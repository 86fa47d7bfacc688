"""The images of the benchmark of drawings, from two small packages made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.drawings import SIZE, things, write_images
from elude.exporter.images import open_images

LISTED = [(f"bird-{number}", "animal-bird") for number in range(40)] + [("hammer", "tool"), ("zodiac", "zodiac")]
ONLY_NOTO = "hammer.png"


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    """Folders as the two npm packages unpack: each emoji a drawing of one colour per style, one emoji in Noto only."""
    listed = [{"short_name": name, "subcategory": part, "image": f"{name}.png"} for name, part in LISTED]
    folders = {style: tmp_path / style for style in ("google", "twitter")}
    for style, folder in folders.items():
        drawn = folder / "img" / style / "64"
        drawn.mkdir(parents=True)
        (folder / "emoji.json").write_text(json.dumps(listed))
        for entry in listed:
            if style == "google" or entry["image"] != ONLY_NOTO:
                Image.new("RGBA", (64, 64), (255, 0, 0, 255)).save(drawn / entry["image"])
    return folders


def test_both_drawings_of_a_thing_are_in_the_same_part(packages: dict[str, Path], tmp_path: Path) -> None:
    write_images(packages["google"], packages["twitter"], tmp_path / "images")
    parts = {part: {p.stem for p in (tmp_path / "images" / part).rglob("*.png")} for part in ("train", "held-out")}
    names = {part: {stem.rpartition("-")[0] for stem in stems} for part, stems in parts.items()}
    assert names["train"]
    assert names["held-out"]
    assert not names["train"] & names["held-out"]
    for part, stems in parts.items():
        assert {f"{name}-noto" for name in names[part]} <= stems
        assert {f"{name}-twemoji" for name in names[part] - {"hammer"}} <= stems
    assert "hammer-twemoji" not in parts["train"] | parts["held-out"]


def test_an_image_is_its_class_s_drawing_on_a_background_and_the_same_each_time(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    for folder in ("first", "second"):
        write_images(packages["google"], packages["twitter"], tmp_path / folder)
    first, second = (open_images(tmp_path / folder / "train") for folder in ("first", "second"))
    assert {entry.label for entry in first.entries} <= {"bird", "tool"}
    assert [e.path.read_bytes() for e in first.entries] == [e.path.read_bytes() for e in second.entries]
    with Image.open(next((tmp_path / "first" / "train" / "bird").iterdir())) as image:
        assert image.size == (SIZE, SIZE)
        share = (np.asarray(image.convert("RGB")) == (255, 0, 0)).all(axis=2).mean()
    assert 0.3 < share < 0.95


def test_things_of_no_class_are_left_out(packages: dict[str, Path]) -> None:
    assert {thing.label for thing in things(packages["google"])} == {"bird", "tool"}


def test_a_folder_that_is_not_the_package_is_refused(packages: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="twitter"):
        write_images(packages["google"], packages["google"], tmp_path / "images")
    assert not (tmp_path / "images").exists()
