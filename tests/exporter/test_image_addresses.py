"""Lists, shards and Hugging Face data sets give the images that are in them; what is wrong with an address is said."""

from __future__ import annotations

import io
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from _images import noise, plain
from PIL import Image

from elude.exporter.images import ImageSource, open_images
from elude.exporter.images.shards import expand
from elude.handlers.errors import ImageError, UsageError
from elude.handlers.images.preprocess import Preprocess


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def contents(source: ImageSource) -> list[tuple[str, str | None, bytes]]:
    return [(example.name, example.label, example.data) for example in source]


def test_a_list_keeps_its_order_and_its_classes(tmp_path: Path) -> None:
    for name in ("b/two words.png", "b/1.jpeg", "c.PNG", "d e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(len(name)))
    lines = ["# a comment", "b/two words.png\tcat and dog", "", "c.PNG 7", "b/1.jpeg", "d e.png"]
    (tmp_path / "images.txt").write_text("\n".join(lines), encoding="utf-8")
    expected = [("b/two words.png", "cat and dog"), ("c.PNG", "7"), ("b/1.jpeg", None), ("d e.png", None)]
    source = open_images(tmp_path / "images.txt")
    assert contents(source) == [(name, label, png(len(name))) for name, label in expected]
    assert source.labels == ["7", "cat and dog"]
    assert contents(open_images("images.txt", tmp_path)) == contents(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("here.png\nnowhere.png", r"Line 2 of .* names 'nowhere\.png', which is not a file"),
        ("here.png\nhere.png", r"Line 2 of .* again"),
        ("# nothing\n\n", "no images in the list"),
        ("here.png,cat", r"Line 1 of .*tab"),
    ],
)
def test_wrong_lists_are_refused_with_the_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "here.png").write_bytes(png(1))
    (tmp_path / "images.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        open_images(tmp_path / "images.txt")


def test_shards_follow_one_another(tmp_path: Path) -> None:
    for number in range(9, 12):
        shard(
            tmp_path / f"part-{number:03}.tar",
            {"0.png": png(number), "0.cls": b"owl", "1.png": png(100 + number), "1.cls": b"cat"},
        )
    source = open_images("part-{009..011}.tar", tmp_path)
    expected = [
        (f"part-{number:03}/{key}.png", label, png(value))
        for number in range(9, 12)
        for key, label, value in ((0, "owl", number), (1, "cat", 100 + number))
    ]
    assert contents(source) == contents(open_images("wds:part-{009..011}.tar", tmp_path)) == expected
    with pytest.raises(UsageError, match=r"part-012\.tar: no such file"):
        open_images("part-{009..012}.tar", tmp_path)
    with pytest.raises(UsageError, match="backwards"):
        open_images("part-{012..009}.tar", tmp_path)
    assert expand("a-{08..10}-{0..1}") == ["a-08-0", "a-08-1", "a-09-0", "a-09-1", "a-10-0", "a-10-1"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real data set with two splits, saved by ``datasets`` itself, and its first split once more by itself and as
    Parquet.
    """
    datasets = pytest.importorskip("datasets")
    root = tmp_path_factory.mktemp("hub")
    kinds = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "owl"])})
    rows = {
        split: datasets.Dataset.from_dict(
            {"picture": [{"bytes": png(v), "path": None} for v in values], "kind": [1, 0, -1]}, features=kinds
        )
        for split, values in (("train", (1, 2, 3)), ("test", (4, 5, 6)))
    }
    datasets.DatasetDict(rows).save_to_disk(str(root / "both"))
    rows["train"].save_to_disk(str(root / "one"))
    (root / "parquet").mkdir()
    rows["test"].to_parquet(str(root / "parquet" / "data.parquet"))
    datasets.Dataset.from_dict({"text": ["no image"]}).save_to_disk(str(root / "texts"))
    return root


def test_a_data_set_gives_its_rows(dataset: Path) -> None:
    test = [("00000000", "owl", png(4)), ("00000001", "cat", png(5)), ("00000002", None, png(6))]
    source = open_images("hf:both:test", dataset)
    assert contents(source) == contents(open_images("hf:both", dataset, split="test")) == test
    assert source.labels == ["cat", "owl"]
    assert [label for _, label, _ in contents(open_images(f"hf:{dataset / 'one'}"))] == ["owl", "cat", None]
    assert [data for _, _, data in contents(open_images("hf:parquet", dataset))] == [data for _, _, data in test]
    few = source.limited(2)
    assert contents(few) == [test[0], test[1]]
    _, pixels = next(few.batches(plain(6), 2))
    np.testing.assert_allclose(pixels[:, 0, 0, 0], (np.array([4, 5]) / 255 - 0.5) / 0.5, rtol=1e-5)


def test_wrong_data_sets_are_refused(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"several splits.*hf:both:SPLIT.*train, test"):
        open_images("hf:both", dataset)
    with pytest.raises(UsageError, match=r"no split 'val'.*train, test"):
        open_images("hf:both:val", dataset)
    with pytest.raises(UsageError, match=r"no column of images.*text"):
        open_images("hf:texts", dataset)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"hf:\./nowhere cannot be loaded"):
        open_images("hf:./nowhere", dataset)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'elude\[hub\]'"):
        open_images("hf:both:test", dataset)


def test_a_batch_is_decoded_while_the_one_before_is_used(tmp_path: Path) -> None:
    seen = threading.Event()

    class Watched(ImageSource):
        def pixels(self, index: int, preprocess: Preprocess) -> np.ndarray:
            if index == 2:
                seen.set()
            return super().pixels(index, preprocess)

    source = noise(tmp_path, 6, 4)
    batches = Watched(source.name, source.entries).batches(plain(4), 2)
    assert next(batches)[0] == 0
    assert seen.wait(10)  # nobody has asked for the second batch yet
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_batches_may_begin_later(tmp_path: Path) -> None:
    source = noise(tmp_path, 7, 4)
    whole = list(source.batches(plain(4), 3))
    later = list(source.batches(plain(4), 3, first=3))
    assert [start for start, _ in later] == [3, 6]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(whole[1:], later, strict=True))
    (tmp_path / "b" / "0005.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"0005\.png"):
        list(source.batches(plain(4), 3))
