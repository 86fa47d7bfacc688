"""The answers to single images: counted again by plain loops, kept beside the report, and drawn on its page."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from _reports import make, measured, with_answers
from PIL import Image
from test_evaluate import CLASSES, PREPROCESS, dark_or_light, subject, suite

from elude.handlers.errors import UsageError
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.evaluation.image_answers import THUMBNAILS, ImageAnswers, image_answers, read_answers
from elude.quality.report import render
from elude.quality.report.breakdowns import severity_charts
from elude.quality.report.mistakes import confused_pairs, image_changes, mistakes
from elude.quality.suites.image_sets import PixelSet


def random_answers(seed: int, images: int = 400, classes: int = 6) -> ImageAnswers:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, images)).astype(np.int32)
    confidence = rng.uniform(0.2, 1, images).astype(np.float32)
    names = tuple(f"{n}.png" for n in range(images))
    return ImageAnswers(names, tuple("abcdef")[:classes], labels, predicted, confidence)


def files_of(report: QualityReport, folder: Path) -> Path:
    for name, content in report.files().items():
        (folder / name).write_bytes(content)
    return folder / "quality.json"


def test_an_evaluation_keeps_the_answer_to_each_image(tmp_path: Path) -> None:
    report = evaluate(subject(), suite(), resamples=0)
    answers = read_answers(files_of(report, tmp_path), report.answers_sha256)
    assert answers is not None
    images = dark_or_light()
    for n, label in enumerate(images.labels):
        mean = ((images.pixels[n] / 255 - 0.5) / 0.25).mean()
        logits = np.array([-2 * mean, 2 * mean])
        assert answers.labels[n] == label
        assert answers.predicted[n] == int(logits[1] > logits[0])
        assert answers.confidence[n] == pytest.approx((np.exp(logits) / np.exp(logits).sum()).max(), abs=1e-5)
    right = (answers.predicted == answers.labels).mean()
    assert report.dimensions["accuracy"].value == pytest.approx(right)
    assert answers.classes == CLASSES
    assert evaluate(subject(), suite(), resamples=0, batch_size=7).files() == report.files()


def test_thumbnails_are_of_the_most_confident_mistakes_and_show_their_pixels() -> None:
    rng = np.random.default_rng(0)
    images = PixelSet(
        rng.integers(0, 256, (500, 8, 8, 3), dtype=np.uint8), rng.integers(0, 2, 500).astype(np.int64), CLASSES
    )
    logits = rng.normal(size=(500, 2)).astype(np.float32)
    answers = image_answers(logits, images.labels, images, PREPROCESS, CLASSES, CLASSES)
    few = image_answers(logits[:40], images.labels[:40], images.chosen(np.arange(40)), PREPROCESS, CLASSES, CLASSES)
    wrong = [n for n in range(40) if logits[n].argmax() != images.labels[n]]
    assert set(few.thumbnails) == set(wrong)
    for number, picture in few.thumbnails.items():
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(picture))), images.pixels[number])
    assert len(answers.thumbnails) <= THUMBNAILS
    always_wrong = image_answers(logits, 1 - logits.argmax(axis=1), images, PREPROCESS, CLASSES, CLASSES)
    gaps = np.abs(logits[:, 0] - logits[:, 1])
    assert set(always_wrong.thumbnails) == set(np.argsort(-gaps)[:THUMBNAILS].tolist())


def test_the_file_gives_back_what_was_written_and_damage_is_refused() -> None:
    answers = replace(random_answers(0), thumbnails={3: b"one", 7: b"", 9: b"three"})
    again = ImageAnswers.from_bytes(answers.to_bytes())
    assert again.to_bytes() == answers.to_bytes()
    assert (again.names, again.classes, again.thumbnails) == (answers.names, answers.classes, answers.thumbnails)
    for broken in (
        replace(answers, labels=answers.labels[:-1]),
        replace(answers, predicted=answers.predicted + 6),
        replace(answers, confidence=answers.confidence * np.float32(np.nan)),
        replace(answers, confidence=answers.confidence + 1),
        replace(answers, thumbnails={400: b"of no image"}),
    ):
        with pytest.raises(UsageError):
            ImageAnswers.from_bytes(broken.to_bytes())
    for data in (b"", answers.to_bytes()[:-9], b"\0" * 100):
        with pytest.raises(UsageError):
            ImageAnswers.from_bytes(data)


def test_a_report_without_answers_has_none_and_those_of_another_are_refused(tmp_path: Path) -> None:
    report = evaluate(subject(), suite(), resamples=0)
    path = files_of(report, tmp_path)
    with pytest.raises(UsageError, match="other measurements"):
        read_answers(path, "0" * 64)
    assert read_answers(path, None) is None
    without = evaluate(subject(), suite(), resamples=0, keep_answers=False)
    assert set(without.files()) == {"quality.json"}
    old = json.loads(report.to_bytes())
    del old["answers_sha256"]  # as earlier versions wrote it
    assert QualityReport.from_json(old).answers_sha256 is None


@pytest.mark.parametrize("seed", range(5))
def test_confused_pairs_and_changes_are_those_of_plain_loops(seed: int) -> None:
    before, after = random_answers(seed), random_answers(seed + 100)
    after = replace(after, labels=before.labels)
    counts: Counter[frozenset[str]] = Counter()
    directions: Counter[tuple[str, str]] = Counter()
    for truth, predicted in zip(after.labels, after.predicted, strict=True):
        if truth != predicted:
            counts[frozenset((after.classes[truth], after.classes[predicted]))] += 1
            directions[after.classes[truth], after.classes[predicted]] += 1
    pairs = confused_pairs(after)
    assert [sum(pair.taken) for pair in pairs] == sorted(counts.values(), reverse=True)[:10]
    for pair in pairs:
        first, second = pair.classes
        assert pair.taken == (directions[first, second], directions[second, first])
        assert pair.images == tuple(sum(after.classes[n] == one for n in after.labels) for one in pair.classes)
    assert max(bar for pair in pairs for bar in pair.bars) == 100
    changes = image_changes(before, after)
    right = [[p == t for p, t in zip(one.predicted, one.labels, strict=True)] for one in (before, after)]
    states = Counter(zip(*right, strict=True))
    assert (changes.newly_wrong, changes.newly_right) == (states[True, False], states[False, True])
    assert changes.both_wrong == states[False, False]
    for shown, was, now in ((changes.wrong_shown, True, False), (changes.right_shown, False, True)):
        numbers = [int(answer.image.removesuffix(".png")) for answer in shown]
        assert all((right[0][n], right[1][n]) == (was, now) for n in numbers)


def test_the_classes_that_dropped_furthest_lead() -> None:
    before = random_answers(0)
    before = replace(before, predicted=before.labels)  # all right
    after = replace(before, predicted=np.where(before.labels == 2, 3, before.labels).astype(np.int32))
    after.predicted[np.flatnonzero(before.labels == 4)[0]] = 0
    classes = image_changes(before, after).classes
    counts = [int((before.labels == c).sum()) for c in (2, 4)]
    assert [(drop.name, drop.newly_wrong, drop.images) for drop in classes] == [
        ("c", counts[0], counts[0]),
        ("e", 1, counts[1]),
    ]
    assert image_changes(before, before).classes == ()


def test_mistakes_are_ordered_by_confidence() -> None:
    answers = random_answers(1)
    shown = mistakes(answers).shown
    wrong = [float(c) for c, p, t in zip(answers.confidence, answers.predicted, answers.labels, strict=True) if p != t]
    assert [answer.confidence for answer in shown] == sorted(wrong, reverse=True)[: len(shown)]
    assert all(answer.truth != answer.predicted for answer in shown)


def test_the_page_shows_mistakes_pairs_and_changes_and_escapes_names(tmp_path: Path) -> None:
    before, after = random_answers(0), random_answers(1)
    classes = ("<b>bag</b>", *"bcdef")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    pictures = {n: picture.getvalue() for n in after.mistakes[:3].tolist()}
    after = replace(after, labels=before.labels, classes=classes, thumbnails=pictures)
    before = replace(before, classes=classes, names=after.names)
    bundle = with_answers(measured(make(tmp_path / "b")), after)
    report = QualityReport.from_json(bundle.json("quality.json"))
    page = render(bundle, baseline=report, baseline_answers=before)
    changes = image_changes(before, after)
    assert f"{changes.newly_wrong} images are newly wrong, {changes.newly_right} newly right" in page
    assert "Classes that dropped furthest" in page
    assert "&lt;b&gt;bag&lt;/b&gt; taken for" in page
    assert "<b>bag" not in page
    assert page.count('class="no-picture"') > 0
    assert "most confident mistakes" in page
    assert "newly wrong" not in render(bundle)
    assert "not kept" in render(bundle, baseline=report)
    other = replace(before, names=tuple(f"other {name}" for name in before.names))
    assert "of other images" in render(bundle, baseline=report, baseline_answers=other)


def test_the_page_of_a_bundle_without_answers_or_with_those_of_another_says_so(tmp_path: Path) -> None:
    bundle = measured(make(tmp_path / "b"))
    assert "evaluate again to see them" in render(bundle)
    kept = with_answers(bundle, random_answers(0))
    assert "are classified wrongly" in render(kept)
    swapped = kept.add({"quality.answers.safetensors": random_answers(1).to_bytes()})
    assert "other measurements" in render(swapped)
    assert "are classified wrongly" not in render(swapped)


def test_a_chart_per_corruption_has_a_bar_per_severity(tmp_path: Path) -> None:
    bundle = measured(make(tmp_path / "b"))
    quality = bundle.json("quality.json")
    table = {"fog/1": 0.8, "fog/5": 0.2, "snow/1": 0.9, "snow/5": 0.6, "frost/x": 1.0, "rain/1": None}
    entry = quality["dimensions"]["corruption_robustness"]
    entry |= {"tables": {"accuracy": table}, "factors": {"clean_accuracy": 0.9}}
    charts = severity_charts(quality)
    assert [(chart.title, chart.bars) for chart in charts] == [
        ("fog", ((1, 0.8), (5, 0.2))),
        ("snow", ((1, 0.9), (5, 0.6))),
    ]
    page = render(bundle.add({"quality.json": json.dumps(quality).encode()}))
    assert "fog: 0.80 at severity 1, 0.20 at severity 5" in page
    assert severity_charts({}) == ()
