"""Published data sets as they lie after unpacking: ``suite init`` recognises each and the suite gives the true labels.

Every made-up image is one colour that encodes the number of its true output, and the measured "model" reads that
number back. So a layout is read rightly if and only if the accuracy is the one worked out by hand.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elude.exporter.images import open_images
from elude.exporter.images.classes import NINE, SIXTEEN, synsets
from elude.handlers.errors import EludeError, UsageError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.dimensions.quality_json import QualityReport
from elude.quality.evaluation.evaluate import evaluate
from elude.quality.subjects.subject import CallableSubject
from elude.quality.suites.corruptions import CORRUPTIONS
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.imagenet import nine_categories
from elude.quality.suites.label_files import read_labels
from elude.quality.suites.pairing import OtherForm
from elude.quality.suites.suite_file import load_suite
from elude.quality.suites.suite_init import init

PHOTOS = Path(os.environ.get("ELUDE_PHOTOS", Path(__file__).parents[3] / "shared" / "data" / "photos"))
TENCH, GOLDFISH, AIRLINER, CLEAVER, DOG, COCK = 0, 1, 404, 499, 151, 7


def paint(path: Path, answer: int, size: int = 12) -> None:
    """An image that the reader below answers with the output ``answer``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (answer // 256, answer % 256, 0)).save(path, "PNG")


def reader(outputs: int = 1000) -> CallableSubject:
    """Answers with the number that the colour encodes."""

    def function(pixels: np.ndarray) -> np.ndarray:
        colours = np.rint(pixels[:, :2, 4, 4] * 255).astype(int)
        return 20.0 * np.eye(outputs)[colours @ [256, 1]]

    names = tuple(str(n) for n in range(outputs)) if outputs != 1000 else None
    preprocess = Preprocess((3, 8, 8), "nearest", 0.875, "center", (0.0,) * 3, (1.0,) * 3)
    return CallableSubject(function, preprocess, labels=names)


def measured(folder: Path, *dimensions: str, outputs: int = 1000) -> QualityReport:
    return evaluate(reader(outputs), load_suite(folder / "suite.toml"), dimensions=dimensions, resamples=0)


def accuracy(folder: Path, outputs: int = 1000) -> float:
    return measured(folder, "accuracy", outputs=outputs).values["accuracy"]


def validation(root: Path) -> None:
    """Four images in synset folders, three answered rightly."""
    for name, true, answer in (("1", TENCH, TENCH), ("2", GOLDFISH, GOLDFISH), ("3", DOG, DOG), ("4", COCK, TENCH)):
        paint(root / synsets()[true] / f"ILSVRC2012_val_0000000{name}.JPEG", answer)


def test_imagenet_in_class_folders(tmp_path: Path) -> None:
    validation(tmp_path)
    written = init(tmp_path)
    assert [item.part for item in written.used] == ["images"]
    assert accuracy(tmp_path) == 0.75
    table = measured(tmp_path, "accuracy").dimensions["accuracy"].tables["accuracy_per_class"]
    assert {name: value for name, value in table.items() if value is not None} == {  # words, not synsets
        "tench": 1.0,
        "goldfish": 1.0,
        "Chihuahua": 1.0,
        "cock": 0.0,
    }
    assert len(table) == 1000  # the two cranes are two


def test_splits_measure_on_validation_only(tmp_path: Path) -> None:
    validation(tmp_path / "val")
    paint(tmp_path / "train" / synsets()[TENCH] / "n01440764_1.JPEG", GOLDFISH)
    init(tmp_path)
    assert load_suite(tmp_path / "suite.toml").images.sha256() != ""
    assert accuracy(tmp_path) == 0.75


FLAT = {
    "val.txt": ["{name}_1.JPEG 0", "{name}_2.JPEG 1", "{name}_3.JPEG 151", "{name}_4.JPEG 7"],
    "LOC_val_solution.csv": [
        "ImageId,PredictionString",
        "{name}_4,n01514668 1 2 3 4",
        "{name}_1,n01440764 85 1 499 272",
        "{name}_2,n01443537 1 1 2 2 n01443537 3 3 4 4",
        "{name}_3,n02085620 1 2 3 4",
    ],
    "imagenet_2012_validation_synset_labels.txt": ["n01440764", "n01443537", "n02085620", "n01514668"],
    "ILSVRC2012_validation_ground_truth.txt": ["490", "361", "171", "370"],
}
KIT = {
    490: "n01440764",
    361: "n01443537",
    171: "n02085620",
    370: "n01514668",
}  # three of these numbers are not the kit's


def flat(root: Path, listed: str) -> None:
    for number, answer in enumerate((TENCH, GOLDFISH, DOG, TENCH), 1):
        paint(root / "val" / f"ILSVRC2012_val_{number}.JPEG", answer)
    lines = [line.format(name="ILSVRC2012_val") for line in FLAT[listed]]
    (root / listed).write_text("\n".join(lines) + "\n")


def kit(path: Path) -> None:
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", float), ("WNID", object), ("num_children", float)]
    rows = [*((number, name, 0) for number, name in KIT.items()), (1001, "n00001740", 4)]
    path.parent.mkdir(parents=True)
    savemat(path, {"synsets": np.array(rows, dtype=kinds)[:, None]})


@pytest.mark.parametrize("listed", list(FLAT))
def test_imagenet_flat_with_a_list(tmp_path: Path, listed: str) -> None:
    flat(tmp_path, listed)
    if "ground_truth" in listed:
        with pytest.raises(UsageError, match=r"meta\.mat"):
            init(tmp_path)
        kit(tmp_path / "ILSVRC2012_devkit_t12" / "data" / "meta.mat")
    init(tmp_path)
    assert accuracy(tmp_path) == 0.75


def test_flat_without_a_list_is_refused(tmp_path: Path) -> None:
    flat(tmp_path, "val.txt")
    (tmp_path / "val.txt").unlink()
    with pytest.raises(UsageError, match="LOC_val_solution"):
        init(tmp_path)
    assert not (tmp_path / "suite.toml").exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ILSVRC2012_val_1.JPEG 0\nILSVRC2012_val_2.JPEG 1\n", "2 images"),
        ("n01440764\nn01443537\n", "2 lines"),
        ("1\n2\n3\n4\n", "development kit"),
        ("ImageId,PredictionString\nILSVRC2012_val_1,tench\n", "without a synset"),
    ],
)
def test_wrong_lists_are_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UsageError, match=named):
        read_labels(tmp_path / "list.txt", [f"ILSVRC2012_val_{n}.JPEG" for n in (1, 2, 3, 4)])


def test_numbers_beyond_the_outputs_are_refused(tmp_path: Path) -> None:
    flat(tmp_path, "val.txt")
    text = (tmp_path / "val.txt").read_text()
    (tmp_path / "val.txt").write_text(text.replace(" 151", " 1000"))
    with pytest.raises(UsageError, match="1000"):
        init(tmp_path)


@pytest.mark.parametrize("grouped", [False, True])
def test_imagenet_c(tmp_path: Path, grouped: bool) -> None:
    """The corrupted answers are right for one of the three that are right on clean images."""
    flat(tmp_path, "LOC_val_solution.csv")
    for name in ("fog", "gaussian_noise"):
        group = {"fog": "weather", "gaussian_noise": "noise"}[name] if grouped else ""
        for severity in "12345":
            for number, true in enumerate((TENCH, GOLDFISH, DOG, COCK), 1):
                folder = tmp_path / "ImageNet-C" / group / name / severity / synsets()[true]
                paint(folder / f"ILSVRC2012_val_{number}.JPEG", TENCH, 8)
    written = init(tmp_path)
    assert [item.part for item in written.used] == ["images", "corruptions"]
    suite = load_suite(tmp_path / "suite.toml")
    assert suite.corruptions == ("fog", "gaussian_noise")
    assert set(suite.corruptions) < set(CORRUPTIONS)
    assert measured(tmp_path, "corruption_robustness").values["corruption_robustness"] == pytest.approx(1 / 3)


def test_corrupted_files_are_found_when_they_are_needed(tmp_path: Path) -> None:
    """Millions of names are not kept; images, hash and choice are those of a set that lists its files."""
    for number in range(6):
        for root in ("val", "fog"):
            paint(tmp_path / root / "ab"[number % 2] / f"{number}.{'JPEG' if root == 'val' else 'png'}", number, 8)
    clean = EncodedSet(open_images(tmp_path / "val"))
    listed = EncodedSet(open_images(tmp_path / "fog"), ready=True)
    other = OtherForm.of(tmp_path / "fog", clean)
    assert other is not None
    assert other.sha256() == listed.sha256()
    preprocess = reader().preprocess
    for images in (other, other.chosen(np.array([1, 4, 5]))):
        numbers = np.arange(6) if len(images) == 6 else np.array([1, 4, 5])
        got = images.batch(preprocess, ("a", "b"), 1, 3)
        expected = listed.chosen(numbers).batch(preprocess, ("a", "b"), 1, 3)
        assert np.array_equal(got.pixels, expected.pixels)
        assert got.labels.tolist() == expected.labels.tolist()
        assert got.numbers.tolist() == [1, 2]
    (tmp_path / "fog" / "b" / "3.png").unlink()
    assert OtherForm.of(tmp_path / "fog", clean) is None


def test_imagenet_c_alone_and_of_other_images_are_refused(tmp_path: Path) -> None:
    for severity in "12345":
        paint(tmp_path / "c" / "fog" / severity / synsets()[TENCH] / "ILSVRC2012_val_9.JPEG", TENCH, 8)
    with pytest.raises(UsageError, match="--images"):
        init(tmp_path)
    validation(tmp_path / "val")
    with pytest.raises(UsageError, match="missing"):
        init(tmp_path)
    assert not (tmp_path / "suite.toml").exists()


def test_imagenet_r_and_sketch(tmp_path: Path) -> None:
    validation(tmp_path / "imagenet" / "val")
    shark, goldfish = synsets()[2], synsets()[GOLDFISH]
    paint(tmp_path / "imagenet-r" / goldfish / "art_0.jpg", GOLDFISH)
    paint(tmp_path / "imagenet-r" / shark / "sticker_1.jpg", GOLDFISH)
    paint(tmp_path / "imagenet-r" / shark / "toy_3.jpg", TENCH)  # not one of the classes there: the others compete
    for n, answer in enumerate((TENCH, TENCH, TENCH, DOG)):
        paint(tmp_path / "sketch" / synsets()[TENCH] / f"sketch_{n}.JPEG", answer)
    written = init(tmp_path)
    assert {str(item.keys.get("name")) for item in written.used[1:]} == {"imagenet-r", "imagenet-sketch"}
    table = measured(tmp_path, "ood_robustness").dimensions["ood_robustness"].tables["accuracy"]
    assert table["imagenet-sketch"] == 0.75
    assert table["imagenet-r"] == pytest.approx(1 / 3)


def test_backgrounds_challenge_pairs_by_foreground(tmp_path: Path) -> None:
    """Mixed-same and mixed-rand name another background, so sorted names do not pair them."""
    validation(tmp_path / "val")
    dog, other = synsets()[DOG], synsets()[COCK]
    for first, (same, rand) in {"1": (DOG, DOG), "2": (DOG, COCK), "3": (TENCH, DOG)}.items():
        name = f"{dog}_{first}"
        paint(tmp_path / "bg" / "mixed_same" / "val" / "00_dog" / f"{name}_{dog}_{9 - int(first)}.JPEG", same, 224)
        paint(tmp_path / "bg" / "mixed_rand" / "val" / "00_dog" / f"{name}_{other}_{first}.JPEG", rand, 224)
    for part in ("same", "rand"):
        paint(tmp_path / "bg" / f"mixed_{part}" / "val" / "01_bird" / f"{other}_5_{dog}_1{part}.JPEG", COCK, 224)
    written = init(tmp_path)
    assert [item.part for item in written.used] == ["images", "mixed"]
    suite = load_suite(tmp_path / "suite.toml")
    assert suite.mixed is not None
    foregrounds = [
        [entry.name.split("/")[-1].rpartition("_n")[0] for entry in part.images.source.entries] for part in suite.mixed
    ]
    assert foregrounds[0] == foregrounds[1]
    factors = measured(tmp_path, "object_focus").dimensions["object_focus"].factors
    assert factors == {"mixed_same": 0.75, "mixed_rand": 0.75}
    (tmp_path / "bg" / "mixed_rand" / "val" / "00_dog" / f"{dog}_2_{other}_2.JPEG").unlink()
    with pytest.raises(UsageError, match="missing"):
        load_suite(tmp_path / "suite.toml")


def test_nine_categories_of_other_folders_are_refused() -> None:
    assert sum(len(members) for members in NINE.values()) == 370
    assert len({index for members in NINE.values() for index in members}) == 370
    assert nine_categories(["02_wheeled vehicle", "06_musical_instrument"])[0][1][0] == synsets()[407]
    with pytest.raises(UsageError, match="flower"):
        nine_categories(["00_flower"])


def test_model_vs_human(tmp_path: Path) -> None:
    """Edge and silhouette by folder, sketch and stylized by file name, cue conflict by both."""
    validation(tmp_path / "val")
    human = tmp_path / "model-vs-human" / "datasets"
    for category, indices in SIXTEEN.items():
        for name in ("edge", "silhouette", "colour"):
            paint(human / name / category / f"{category}1.png", indices[0], 224)
        for name, answer in (("sketch", indices[-1]), ("stylized", AIRLINER)):
            trial = f"0001_{name[:2]}_dnn_0_{category}_10_n0123_1.png"
            paint(human / name / "dnn" / "session-1" / trial, answer, 224)
        texture = "knife" if category != "knife" else "bear"
        paint(human / "cue-conflict" / category / f"{category}3-{texture}2.png", CLEAVER, 224)
        paint(human / "cue-conflict" / category / f"{category}1-{category}2.png", CLEAVER, 224)  # no conflict
    written = init(tmp_path)
    assert {str(item.keys["name"]) for item in written.used if item.part == "shifted"} == {
        "edge",
        "silhouette",
        "sketch",
        "stylized",
    }
    assert [str(item.keys["name"]) for item, _ in written.left_out] == ["colour"]
    report = measured(tmp_path, "ood_robustness", "shape_bias")
    table = report.dimensions["ood_robustness"].tables["accuracy"]
    assert table == {"edge": 1.0, "silhouette": 1.0, "sketch": 1.0, "stylized": pytest.approx(1 / 16)}
    bias = report.dimensions["shape_bias"]
    assert bias.images == 16
    assert bias.factors == {"shape": 1 / 16, "texture": 15 / 16, "neither": 0.0}


def test_stimuli_are_not_cut_again(tmp_path: Path) -> None:
    validation(tmp_path / "val")
    for category in SIXTEEN:
        paint(tmp_path / "edges" / category / f"{category}1.png", 0, 224)
    init(tmp_path)
    shift = load_suite(tmp_path / "suite.toml").shifted[0]
    border = np.zeros((224, 224, 3), np.uint8)
    border[0] = border[:, 0] = 255
    Image.fromarray(border).save(tmp_path / "edges" / "airplane" / "airplane1.png")
    preprocess = Preprocess((3, 224, 224), "bicubic", 0.875, "center", (0.0,) * 3, (1.0,) * 3)
    names = [name for name, _ in shift.categories or ()]
    assert np.array_equal(shift.images.batch(preprocess, names, 0, 1).pixels[0], border)


def test_domains(tmp_path: Path) -> None:
    """PACS: photographs are the validation images, the others are shifted; other domains have to be chosen among."""
    for domain, answers in {"photo": (0, 1), "cartoon": (0, 0), "sketch": (1, 0)}.items():
        for label, answer in zip("01", answers, strict=True):
            paint(tmp_path / "pacs" / domain / label / "pic_001.jpg", answer)
    init(tmp_path / "pacs")
    report = measured(tmp_path / "pacs", "accuracy", "ood_robustness", outputs=2)
    assert report.values["accuracy"] == 1.0
    assert report.dimensions["ood_robustness"].tables["accuracy"] == {"cartoon": 0.5, "sketch": 0.0}
    (tmp_path / "pacs" / "photo").rename(tmp_path / "pacs" / "real")
    with pytest.raises(UsageError, match="--images"):
        init(tmp_path / "pacs", out=tmp_path / "two.toml")
    init(tmp_path / "pacs", images="real", out=tmp_path / "pacs" / "two.toml")
    assert load_suite(tmp_path / "pacs" / "two.toml").images.source.name.endswith("real")  # type: ignore[attr-defined]


def test_numbered_folders_are_numbers_of_outputs(tmp_path: Path) -> None:
    """Sorted as text, 10 would come before 2."""
    for number in (2, 7, 10, 11):
        paint(tmp_path / str(number) / "1.png", number)
    init(tmp_path)
    assert accuracy(tmp_path, outputs=12) == 1.0


def test_plain_class_folders_and_other_sets_beside_them(tmp_path: Path) -> None:
    for label in "01":
        paint(tmp_path / "mine" / label / "1.png", int(label))
    for category in SIXTEEN:
        paint(tmp_path / "edge" / category / f"{category}1.png", 0, 224)
    written = init(tmp_path)
    assert [reason.partition(",")[0] for _, reason in written.left_out] == [
        "its categories are of ImageNet-1k's classes"
    ]
    assert accuracy(tmp_path, outputs=2) == 1.0


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        init(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        init(tmp_path / "empty")
    validation(tmp_path / "val")
    init(tmp_path / "val")
    with pytest.raises(UsageError, match="already exists"):
        init(tmp_path / "val")
    with pytest.raises(EludeError, match="no folder"):
        init(tmp_path / "val", images="nowhere", out=tmp_path / "other.toml")


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs: set ELUDE_PHOTOS")
def test_real_photographs(tmp_path: Path) -> None:
    written = init(PHOTOS, images="imagenet", out=tmp_path / "suite.toml")
    suite = load_suite(written.file)
    assert len(suite.images) == 500
    assert set(suite.images.classes) <= set(synsets())
    assert {shift.name: len(shift.images) for shift in suite.shifted} == {"edge": 160, "silhouette": 160}
    assert suite.cue_conflict is not None
    assert len(suite.cue_conflict.images) == 640
    domains = load_suite(init(PHOTOS / "pacs", out=tmp_path / "pacs.toml").file)
    assert {shift.name for shift in domains.shifted} == {"art_painting", "cartoon", "sketch"}
