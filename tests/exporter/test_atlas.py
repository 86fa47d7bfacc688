"""The catalogue holds the strongest images of each unit and sub-unit, each image once, and the same bytes each time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from _images import noise, plain
from _models import TwoConcepts
from PIL import Image

from elude.exporter.atlas.fill_catalogue import THUMBNAIL, thumbnail, write_atlas
from elude.exporter.models.layers import find_layers
from elude.exporter.scoring.activity import scan
from elude.exporter.scoring.measures import SUB_UNITS, ms_scores
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.catalogue import Catalogue

# Unit 0 of TwoConcepts is 2 r + 3 g - 1: sub-unit 0 takes red, sub-unit 1 green, and blue, which is nothing, is shared.
SPLIT = LayerSplit(
    "mix",
    np.array([2, 1]),
    np.array([[1, 2, 3], [1, 1, 1]], np.uint64),
    np.array([0.25, np.nan], np.float32),
    np.zeros((3, 3), np.float32),
)


def write(path: Path, folder: Path, tops: int = 4) -> None:
    model, images = TwoConcepts(), noise(folder, 11, 4, ("cat", "dog"))
    layers = find_layers(model, "mix")
    measures = ms_scores(
        model, layers, {"mix": SPLIT}, {"mix": SPLIT}, images=images, preprocess=plain(4), held_out=False
    )
    activity = scan(model, layers, {SUB_UNITS: {"mix": SPLIT}}, images, plain(4))
    write_atlas(path, [SPLIT], activity, measures, images=images, preprocess=plain(4), tops=tops)


def test_rows_equal_what_the_model_computes(tmp_path: Path) -> None:
    write(tmp_path / "catalogue.sqlite", tmp_path / "images")
    catalogue = Catalogue(tmp_path / "catalogue.sqlite")
    images = noise(tmp_path / "images", 11, 4, ("cat", "dog"))
    x = torch.from_numpy(next(images.batches(plain(4), 11))[1])
    red = torch.nn.functional.avg_pool2d(x, 2).flatten(2)[:, 0].double().numpy()
    activation = 2 * red - 0.5  # half of the bias: it takes one input and shares one of the three
    assert catalogue.count() == 3
    first = catalogue.sub_unit_by_id("mix/u0.s0")
    order = np.argsort(-activation.max(1))[:4]
    expected = [(int(image), int(activation[image].argmax())) for image in order if activation[image].max() > 0]
    assert [(top.image, top.token) for top in first.tops] == expected
    np.testing.assert_allclose(
        [top.activation for top in first.tops], activation.max(1)[order][: len(expected)], rtol=1e-5
    )
    assert first.omega == pytest.approx(0.5)
    assert first.share == pytest.approx(0.5)
    assert first.rho == 0.25
    assert first.active == pytest.approx((activation > 0).mean())
    assert first.mean == pytest.approx(activation.mean(), rel=1e-5)
    assert first.maximum == pytest.approx(activation.max(), rel=1e-5)
    assert first.name is None
    whole = catalogue.sub_unit_by_id("mix/u1.s0")
    assert whole.rho is None
    assert whole.tops == catalogue.unit("mix", 1).tops
    assert catalogue.unit("mix", 0).parts == 2
    image = catalogue.image(first.tops[0].image)
    assert image.name == images.entries[image.id].name
    assert image.label == images.entries[image.id].label


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, tmp_path / "images")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_only_images_that_occur_are_stored(tmp_path: Path) -> None:
    write(tmp_path / "few", tmp_path / "images", tops=1)
    catalogue = Catalogue(tmp_path / "few")
    rows = [*(catalogue.unit("mix", unit) for unit in range(2)), *(catalogue.sub_unit(index) for index in range(3))]
    used = {top.image for row in rows for top in row.tops}
    stored = {image for image in range(11) if _has(catalogue, image)}
    assert stored == used
    assert all(len(row.tops) <= 1 for row in rows)


def test_thumbnails_are_small_and_grey_where_there_is_no_colour() -> None:
    grey = np.repeat(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28, 1), 3, axis=2)
    decoded = Image.open(io.BytesIO(thumbnail(grey)))
    assert decoded.mode == "L"
    assert np.array_equal(np.asarray(decoded), grey[..., 0])
    large = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    decoded = Image.open(io.BytesIO(thumbnail(large)))
    assert decoded.mode == "RGB"
    assert decoded.size == (64, THUMBNAIL)


def _has(catalogue: Catalogue, image: int) -> bool:
    from elude.handlers.errors import UsageError

    try:
        catalogue.image(image)
    except UsageError:
        return False
    return True
