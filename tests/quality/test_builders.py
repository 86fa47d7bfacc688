"""Masks, textures, mixed backgrounds, cue conflict and shifts, on pictures whose answers are plain."""

from __future__ import annotations

import numpy as np
import pytest
from _scenes import scenes

from elude.handlers.errors import EvaluationError
from elude.quality.suites.builders.composites import cue_conflict, mixed_backgrounds
from elude.quality.suites.builders.donors import choose
from elude.quality.suites.builders.masks import dark_background_masks
from elude.quality.suites.builders.shifts import edge, silhouette, sketch
from elude.quality.suites.builders.textures import largest_squares, tiled


def test_masks_close_small_holes_only() -> None:
    image = np.zeros((1, 40, 40, 3), np.uint8)
    image[0, 5:35, 5:35] = 100
    image[0, 10:12, 10:12] = 0  # 4 pixels: a hole in the cloth
    image[0, 20:30, 20:30] = 0  # 100 pixels: the handle of a bag
    image[0, 38, 38] = 100  # a speck
    mask = dark_background_masks(image)[0]
    assert mask[10, 10]
    assert not mask[25, 25]
    assert not mask[38, 38]
    assert mask[6, 6]
    assert mask.sum() == 900 - 100


def test_largest_square_against_brute_force() -> None:
    masks = np.random.default_rng(0).random((20, 9, 11)) > 0.25
    masks[0] = False
    for mask, (top, left, side) in zip(masks, largest_squares(masks), strict=True):
        best = max(
            (s for s in range(10) for y in range(10 - s) for x in range(12 - s) if mask[y : y + s, x : x + s].all()),
        )
        assert side == best
        assert mask[top : top + side, left : left + side].all()


def test_tiled_mirrors() -> None:
    image = np.arange(36, dtype=np.uint8).reshape(6, 6, 1).repeat(3, axis=2)
    result = tiled(image, np.array([1, 2, 2]))[..., 0]
    assert result[0].tolist() == [8, 9, 9, 8, 8, 9]
    assert result[:, 0].tolist() == [8, 14, 14, 8, 8, 14]


def test_mixed_backgrounds() -> None:
    pixels, labels = scenes(12)
    masks = dark_background_masks(pixels)
    mixed = mixed_backgrounds(pixels, labels, masks, seed=1)
    assert np.array_equal(mixed.numbers, np.arange(12))
    own, other = np.where(labels == 1, 200, 80), np.where(labels == 1, 80, 200)
    for i in range(12):
        assert (mixed.same[i][masks[i]] == own[i]).all()
        assert (mixed.rand[i][masks[i]] == own[i]).all()  # the object stays
        assert (mixed.same[i][~masks[i]] == own[i]).all()
        assert (mixed.rand[i][~masks[i]] == other[i]).all()
    again = mixed_backgrounds(pixels, labels, masks, seed=1)
    assert np.array_equal(mixed.rand, again.rand)


def test_cue_conflict() -> None:
    pixels, labels = scenes(12)
    masks = dark_background_masks(pixels)
    cues = cue_conflict(pixels, labels, masks)
    assert np.array_equal(cues.shapes, labels)
    assert np.array_equal(cues.textures, 1 - labels)
    for i in range(12):
        assert (cues.pixels[i][masks[i]] == (80 if labels[i] else 200)).all()
        assert (cues.pixels[i][~masks[i]] == 0).all()


def test_donors() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    same, rand = choose(labels, 0, same=True), choose(labels, 0, same=False)
    assert np.array_equal(labels[same], labels)
    assert not np.any(same == np.arange(6))
    assert not np.any(labels[rand] == labels)
    with pytest.raises(EvaluationError, match="same class"):
        choose(np.array([0, 1]), 0, same=True)
    with pytest.raises(EvaluationError, match="another class"):
        choose(np.array([0, 0]), 0, same=False)


def test_empty_images_are_left_out_or_refused() -> None:
    pixels, labels = scenes(12)
    pixels[0] = 0
    assert 0 not in mixed_backgrounds(pixels, labels, dark_background_masks(pixels)).numbers
    black = np.zeros_like(pixels)
    with pytest.raises(EvaluationError, match="object"):
        cue_conflict(black, labels, dark_background_masks(black))


def test_shifts() -> None:
    pixels, _ = scenes(2)
    masks = dark_background_masks(pixels)
    assert np.array_equal(silhouette(pixels, masks)[..., 0] == 255, masks)
    edges = edge(pixels, masks)[0, ..., 0]
    assert edges[10, 10] == 0  # inside
    assert edges[0, 0] == 0
    assert edges[7, 10] == 255
    strokes = sketch(pixels, masks)
    assert strokes.max() == 255
    assert strokes[0, 0, 0, 0] == 0
    for change in (edge, silhouette, sketch):
        assert np.array_equal(change(pixels, masks)[1], change(pixels[1:], masks[1:])[0])  # images do not mix
    for change in (edge, sketch):
        assert not change(np.zeros((1, 20, 20, 3), np.uint8), np.zeros((1, 20, 20), bool)).any()
