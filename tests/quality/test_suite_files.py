"""Suites from files: built ones measure what is made on the fly; the published protocol on sets laid out like the
published data.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from elude.exporter.images import ImageSource
from elude.exporter.images.classes import SIXTEEN, synsets
from elude.handlers.errors import EvaluationError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.dimensions.ood_robustness import top1_categories
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.evaluation.extra_sets import label_names, texture_labels
from elude.quality.subjects.subject import CallableSubject
from elude.quality.suites.corruptions import CORRUPTIONS
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.imagenet import indexed_categories, sixteen_categories
from elude.quality.suites.open_suite import EMBEDDED, open_suite
from elude.quality.suites.sources import expand, open_source
from elude.quality.suites.suite import ShiftedSet, Suite
from elude.quality.suites.suite_build import BuildSettings, build, verify
from elude.quality.suites.suite_file import load_suite

PROTOCOL = Path(__file__).parents[2] / "quality" / "suites" / "protocols" / "imagenet-1k.toml"
SMALL = BuildSettings(
    size=28, interpolation="bilinear", corruptions=("fog", "jpeg_compression"), severities=(1, 5), dark_background=True
)


def picture(value: int, size: int = 8) -> Image.Image:
    return Image.fromarray(np.full((size, size, 3), value, np.uint8))


def save(path: Path, value: int = 100, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(value, size).save(path)


@pytest.fixture(scope="module")
def garments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty of the embedded images, unpacked."""
    root = tmp_path_factory.mktemp("garments")
    for example in cast(ImageSource, open_source(str(EMBEDDED))).limited(40):
        (root / example.name).parent.mkdir(exist_ok=True)
        (root / example.name).write_bytes(example.data)
    return root


def nearest_mean(images: Suite) -> CallableSubject:
    """Answers by the distance to the mean picture of each class: no torch, and sensitive to every pixel."""
    preprocess = SMALL.preprocess
    batch = next(iter(images.images.batches(preprocess, images.images.classes, 1000)))
    means = np.stack([batch.pixels[batch.labels == c].mean(axis=0) for c in range(len(images.images.classes))]) / 255

    def function(pixels: np.ndarray) -> np.ndarray:
        flat = np.moveaxis(pixels, 1, -1)[:, None] - means[None]
        return -(flat**2).sum(axis=(2, 3, 4))

    return CallableSubject(function, preprocess, labels=images.images.classes, parameters=1000, sha256="0" * 64)


def test_built_suite_measures_what_is_made_on_the_fly(garments: Path, tmp_path: Path) -> None:
    built = build(garments, tmp_path / "suite", settings=SMALL)
    assert set(built.made) == {
        "images.tar",
        "edge.tar",
        "silhouette.tar",
        "sketch.tar",
        "mixed_same.tar",
        "mixed_rand.tar",
        "cue_conflict.tar",
        *(f"corrupted/{c}/{s}.tar" for c in SMALL.corruptions for s in SMALL.severities),
    }
    verify(built.folder)
    ready = open_suite(built.folder)
    plain = Suite(
        "plain", EncodedSet(open_source(str(garments))), SMALL.corruptions, SMALL.severities, dark_background=True
    )
    subject = nearest_mean(plain)
    first, second = evaluate(subject, ready, resamples=30), evaluate(subject, plain, resamples=30)
    assert len(first.dimensions) == 8  # all but attacks, which need gradients
    assert first.values == pytest.approx(second.values, abs=1e-12)
    assert first.values["corruption_robustness"] != 1.0


def test_build_resumes_and_refuses(garments: Path, tmp_path: Path) -> None:
    out = tmp_path / "suite"
    build(garments, out, settings=SMALL)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = build(garments, out, settings=SMALL)
    assert not again.made
    (out / "edge.tar").write_bytes(b"damaged")
    (out / "corrupted/fog/5.tar").unlink()
    with pytest.raises(UsageError, match=r"edge\.tar|5\.tar"):
        verify(out)
    mended = build(garments, out, settings=SMALL, workers=2)
    assert set(mended.made) == {"edge.tar", "corrupted/fog/5.tar"}
    assert {
        path: path.read_bytes() for path in out.rglob("*") if path.is_file()
    } == before  # the same bytes, by other processes
    with pytest.raises(UsageError, match="settings"):
        build(garments, out, settings=BuildSettings(size=28))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        build(garments, tmp_path / "other", settings=SMALL)


def test_stopped_build_is_no_suite(garments: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def progress(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        build(garments, tmp_path / "suite", settings=SMALL, progress=progress)
    assert not (tmp_path / "suite" / "suite.toml").exists()
    assert len(build(garments, tmp_path / "suite", settings=SMALL).kept) == 3


def test_masks_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):
        label = "ab"[i % 2]
        image = rng.integers(0, 255, (16, 16, 3), np.uint8)
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 4:12] = 255
        for root, content in (("images", Image.fromarray(image)), ("masks", Image.fromarray(mask))):
            (tmp_path / root / label).mkdir(parents=True, exist_ok=True)
            content.save(tmp_path / root / label / f"{i}.png")
    settings = BuildSettings(size=16, corruptions=("fog",), severities=(1,))
    suite = open_suite(
        build(tmp_path / "images", tmp_path / "suite", masks=tmp_path / "masks", settings=settings).folder
    )
    assert suite.mixed is not None
    assert suite.cue_conflict is not None
    preprocess = settings.preprocess
    mixed = suite.mixed[1].images.batch(preprocess, ("a", "b"), 0, 6).pixels
    clean = suite.images.batch(preprocess, ("a", "b"), 0, 6).pixels
    assert np.array_equal(mixed[:, 4:12, 4:12], clean[:, 4:12, 4:12])
    assert not np.array_equal(mixed[:, :4], clean[:, :4])
    (tmp_path / "masks" / "a" / "0.png").unlink()
    with pytest.raises(EvaluationError, match="a/0"):
        build(tmp_path / "images", tmp_path / "second", masks=tmp_path / "masks", settings=settings)


def test_sixteen_categories() -> None:
    assert len(SIXTEEN) == 16
    assert (
        sum(len(indices) for indices in SIXTEEN.values())
        == 207
        == len({i for indices in SIXTEEN.values() for i in indices})
    )
    names = dict(sixteen_categories())
    assert names["airplane"] == ("n02690373",)  # airliner
    assert names["knife"] == ("n03041632",)  # cleaver
    assert len(synsets()) == 1000
    assert list(synsets()) == sorted(synsets())
    assert len(synsets("imagenet_r")) == 200
    assert set(synsets("imagenet_r")) <= set(synsets())


def protocol_data(root: Path) -> None:
    """Small sets in the layout of the published data."""
    shutil.copy(PROTOCOL, root / "suite.toml")
    names = synsets()
    for i, synset in enumerate((names[404], names[499], names[151], names[0])):
        for k in range(2):
            save(root / "val" / synset / f"ILSVRC2012_val_{i}{k}.png", i, 12)
            for corruption in CORRUPTIONS:
                for severity in "12345":
                    save(root / "imagenet-c" / corruption / severity / synset / f"ILSVRC2012_val_{i}{k}.png", i)
    human = root / "model-vs-human"
    for category in ("airplane", "knife"):
        for name in ("edge", "silhouette"):
            save(human / name / category / f"{category}1.png", 1)
        for name in ("sketch", "stylized"):
            save(human / name / "session-1" / f"0001_{name}_dnn_0_{category}_n0123_1.png", 1)
        save(
            human / "cue-conflict" / category / f"{category}3-{'knife' if category == 'airplane' else 'airplane'}2.png",
            1,
        )
        save(human / "cue-conflict" / category / f"{category}1-{category}2.png", 1)  # no conflict
    for synset in synsets("imagenet_r")[:3]:
        save(root / "imagenet-r" / synset / "art_0.png", 1)
    for part in ("same", "rand"):
        save(root / "bg_challenge" / f"mixed_{part}" / "val" / "00_dog" / "1.png", 1)
        save(root / "bg_challenge" / f"mixed_{part}" / "val" / "01_bird" / "1.png", 1)


def test_published_protocol(tmp_path: Path) -> None:
    protocol_data(tmp_path)
    suite = open_suite(tmp_path)
    assert suite.protocol == "imagenet-1k"
    assert len(suite.corrupted) == 75
    assert [shift.name for shift in suite.shifted] == ["edge", "silhouette", "sketch", "stylized", "imagenet-r"]
    assert suite.shifted[2].images.classes == ("airplane", "knife")
    assert suite.shifted[4].classes == synsets("imagenet_r")[:3]
    assert suite.mixed is not None
    assert suite.mixed[0].categories is not None
    assert [(name, members[0], len(members)) for name, members in suite.mixed[0].categories] == [
        ("00_dog", synsets()[151], 116),
        ("01_bird", synsets()[7], 52),
    ]

    def function(pixels: np.ndarray) -> np.ndarray:
        outputs = np.zeros((len(pixels), 1000))
        outputs[:, 151], outputs[:, 404], outputs[:, int(synsets().index(synsets("imagenet_r")[0]))] = 3, 2, 1
        return outputs

    subject = CallableSubject(function, Preprocess((3, 8, 8), "bilinear", 0.875, "center", (0.0,) * 3, (1.0,) * 3))
    report = evaluate(subject, suite, resamples=0)
    assert report.values["accuracy"] == 0.25  # always says 151
    assert report.values["corruption_robustness"] == pytest.approx(1.0)
    ratios = report.dimensions["ood_robustness"].factors
    assert ratios["edge"] == ratios["sketch"] == pytest.approx(0.5 / 0.25)  # "airplane" has the highest mean
    assert ratios["imagenet-r"] == pytest.approx(1 / 3 / 0.25)
    assert report.dimensions["object_focus"].factors == {"mixed_same": 0.5, "mixed_rand": 0.5}  # class 151 is a dog
    assert report.dimensions["shape_bias"].images == 2
    assert report.values["shape_bias"] == 0.5
    assert report.score is None  # eight images are not the protocol
    assert "50000" in report.settings["no_score"]


def test_ready_corruptions_are_not_cut_again_and_are_paired(tmp_path: Path) -> None:
    protocol_data(tmp_path)
    gradient = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    file = next((tmp_path / "imagenet-c" / "fog" / "3").rglob("*.png"))
    Image.fromarray(gradient).save(file)
    suite = open_suite(tmp_path)
    fog = next(images for name, severity, images in suite.corrupted if (name, severity) == ("fog", 3))
    preprocess = Preprocess((3, 8, 8), "bilinear", 0.5, "center", (0.0,) * 3, (1.0,) * 3)
    pixels = fog.batch(preprocess, synsets(), 0, len(fog)).pixels
    assert any(np.array_equal(image, gradient) for image in pixels)
    file.rename(file.with_name("another.png"))
    with pytest.raises(UsageError, match="missing"):
        open_suite(tmp_path)


def test_top1_decision_may_be_none() -> None:
    outputs = np.array([[3.0, 0, 0, 2.9], [0, 1, 0, 0], [0, 0, 1, 0]])
    assert top1_categories(outputs, [[0], [1, 3]]).tolist() == [0, 1, -1]


def test_textures_of_names_with_digits_and_dashes(tmp_path: Path) -> None:
    for name in ("n02/1-n01", "n01/n01-T-shirt", "T-shirt/x-n027"):
        save(tmp_path / f"{name}.png")
    shift = ShiftedSet("cues", EncodedSet(open_source(str(tmp_path))))
    names = label_names(shift, ("n01", "n02", "T-shirt"))
    assert texture_labels(shift, names).tolist() == [1, 2, 0]  # sorted: T-shirt/x, n01/n01, n02/1
    save(tmp_path / "n01" / "n01-plaid.png")
    with pytest.raises(EvaluationError, match="plaid"):
        texture_labels(ShiftedSet("cues", EncodedSet(open_source(str(tmp_path)))), names)


def test_categories_of_other_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"0": 0, "1": 2}')
    with pytest.raises(UsageError, match="numbers"):
        indexed_categories(path, ("a", "b"), ("x", "y"))
    path.write_text("[]")
    with pytest.raises(UsageError, match="map"):
        indexed_categories(path, ("a", "b"), ("x", "y"))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ('decision = "top1"', 'decision = "best"', "decision"),
        ('source = "imagenet-r"', 'sorce = "imagenet-r"', "source"),
        ('source = "val"', 'source = "nowhere"', "nowhere"),
        ('name = "edge"', 'name = "edge"\nsubset = 3', "subset"),
        ("[corruptions]", '[corruptions]\nnames = ["rain"]', "rain"),
        ('outputs = "imagenet-1k" ', 'outputs = "names.txt" ', "names.txt"),
    ],
)
def test_wrong_files_are_refused_with_the_place(tmp_path: Path, old: str, new: str, named: str) -> None:
    protocol_data(tmp_path)
    text = (tmp_path / "suite.toml").read_text()
    assert old in text
    (tmp_path / "suite.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=named):
        load_suite(tmp_path / "suite.toml")


def test_webdataset_shards(tmp_path: Path) -> None:
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    for shard, label in enumerate("ab"):
        with tarfile.open(tmp_path / f"shard-{shard:02}.tar", "w") as tar:
            folder = tmp_path / label
            for key in ("0001", "0002"):
                save(folder / f"{key}.png", shard)
                (folder / f"{key}.cls").write_text(label)
                tar.add(folder / f"{key}.png", f"{key}.png")
                tar.add(folder / f"{key}.cls", f"{key}.cls")
    images = EncodedSet(open_source("wds:shard-{00..01}.tar", tmp_path))
    assert images.classes == ("a", "b")
    preprocess = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.0,) * 3, (1.0,) * 3)
    batch = images.batch(preprocess, ("a", "b"), 0, 4)
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 0, 1, 1]


def test_hub_data_set_on_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = datasets.Dataset.from_dict(
        {"image": [picture(1), picture(2), picture(3)], "label": [1, 0, 1]}, features=features
    )
    datasets.DatasetDict({"validation": rows}).save_to_disk(str(tmp_path / "pets"))
    images = EncodedSet(open_source("hf:pets", tmp_path, split="validation"))
    preprocess = Preprocess((3, 8, 8), "bilinear", 1.0, "center", (0.0,) * 3, (1.0,) * 3)
    batch = images.batch(preprocess, ("cat", "dog"), 0, 3)
    assert batch.labels.tolist() == [1, 0, 1]
    assert batch.pixels[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert images.sha256() == EncodedSet(open_source("hf:pets", tmp_path, split="validation")).sha256()
    with pytest.raises(UsageError, match="split"):
        open_source("hf:pets", tmp_path, split="test")
