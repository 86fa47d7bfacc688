"""A budget limits ready sets too: a seeded choice by class, the same objects on both backgrounds, the same images in
pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from elude.exporter.images import Entry, ImageSource
from elude.handlers.images.preprocess import Preprocess
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.evaluation.extra_sets import ready_sets
from elude.quality.subjects.subject import CallableSubject
from elude.quality.suites.choice import stratified
from elude.quality.suites.image_sets import EncodedSet, PixelSet
from elude.quality.suites.suite import ShiftedSet, Suite

CLASSES = ("dark", "light")
PREPROCESS = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.5,) * 3, (0.25,) * 3)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_each_class_keeps_its_part(sizes: list[int], share: float, seed: int) -> None:
    classes = [str(c) for c, size in enumerate(sizes) for _ in range(size)]
    count = max(1, int(share * len(classes)))
    chosen = stratified(classes, count, seed)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, stratified(classes, count, seed))
    for c, size in enumerate(sizes):
        taken = sum(classes[n] == str(c) for n in chosen)
        assert (
            abs(taken - size * count / len(classes)) <= 2
        )  # one for the class's own place, one for the last place of all


def test_every_image_has_the_same_chance() -> None:
    classes = ["a"] * 5 + ["b"] * 15
    counts = np.sum([np.isin(np.arange(20), stratified(classes, 7, seed)) for seed in range(4000)], axis=0)
    assert np.allclose(counts / 4000, 7 / 20, atol=0.04)


def lights(images: int, seed: int) -> PixelSet:
    labels = np.arange(images) % 2
    pixels = np.random.default_rng(seed).integers(0, 120, (images, 8, 8, 3)) + 100 * labels[:, None, None, None]
    return PixelSet(pixels.astype(np.uint8), labels.astype(np.int64), CLASSES)


def test_ready_sets_are_limited_and_backgrounds_stay_pairs() -> None:
    sets = {
        name: ShiftedSet(name, lights(size, i))
        for i, (name, size) in enumerate({"a": 50, "b": 8, "same": 40, "rand": 40}.items())
    }
    suite = Suite("ready", lights(60, 9), (), shifted=(sets["a"], sets["b"]), mixed=(sets["same"], sets["rand"]))
    asked: list[int] = []

    def function(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return np.stack([0.4 - x.mean(axis=(1, 2, 3)), np.zeros(len(x))], axis=1)

    report = evaluate(CallableSubject(function, PREPROCESS, labels=CLASSES), suite, budget=12)
    assert report.dimensions["ood_robustness"].images == 12 + 8
    assert report.dimensions["object_focus"].images == 12
    assert sum(asked) == 60 + 12 + 8 + 12 + 12 == report.settings["forward_passes"]
    chosen, paired = ready_sets(suite, ["object_focus"], np.arange(12), 12, 3)
    assert not paired
    same, rand = (chosen[f"mixed/{part}"].images for part in ("same", "rand"))
    numbers = stratified(suite.mixed[0].images.class_of(), 12, 3)  # type: ignore[index]
    assert np.array_equal(same.pixels, lights(40, 2).pixels[numbers])  # type: ignore[attr-defined]
    assert np.array_equal(rand.pixels, lights(40, 3).pixels[numbers])  # type: ignore[attr-defined]
    wide, narrow = (
        evaluate(CallableSubject(function, PREPROCESS, labels=CLASSES), suite, budget=12),
        evaluate(CallableSubject(function, PREPROCESS, labels=CLASSES), suite),
    )
    widths = [
        r.dimensions["object_focus"].interval[1] - r.dimensions["object_focus"].interval[0] for r in (wide, narrow)
    ]  # type: ignore[index]
    assert widths[0] > 1.3 * widths[1]  # fewer images, less certainty


def named(*stems: str) -> EncodedSet:
    return EncodedSet(ImageSource("s", tuple(Entry(f"a/{stem}.png", "a", Path()) for stem in stems)))


def test_sets_of_the_clean_images_keep_the_same_ones() -> None:
    clean = named("1", "2", "3", "4")
    subset = np.array([0, 3])
    chosen, paired = ready_sets(
        Suite("s", clean, (), shifted=(ShiftedSet("edge", named("1", "2", "3", "4")),)),
        ["ood_robustness"],
        subset,
        2,
        0,
    )
    assert paired
    assert [entry.name for entry in chosen["shifted/edge"].images.source.entries] == ["a/1.png", "a/4.png"]  # type: ignore[attr-defined]
    other = Suite("s", clean, (), shifted=(ShiftedSet("edge", named("1", "2", "3", "9")),))
    assert not ready_sets(other, ["ood_robustness"], subset, 2, 0)[1]
