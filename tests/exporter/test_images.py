"""Folders and tars of the same content give the same sequence; what cannot be read is named."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elude.exporter.images import open_images
from elude.handlers.errors import ImageError, UsageError
from elude.handlers.images.preprocess import Preprocess

PREPROCESS = Preprocess((3, 8, 8), "bicubic", 1.0, "center", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NAMES = ["zebra/1.png", "apple/2.png", "apple/deep/1.PNG", "loose.png"]


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 2 * value, 3 * value)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(path: Path, files: dict[str, bytes], prefix: str = "./") -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def files() -> dict[str, bytes]:
    return {name: png(20 + index) for index, name in enumerate(NAMES)} | {
        "notes.txt": b"no image",
        "apple/._2.png": b"hidden",
    }


def test_folder_and_tar_of_the_same_content_give_the_same_sequence(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = open_images(write(tmp_path / "images", files))
    packed = open_images(pack(tmp_path / "images.tar", files))
    assert list(folder) == list(packed) == list(folder)
    assert [example.name for example in folder] == sorted(NAMES)
    assert [example.label for example in folder] == ["apple", "apple", None, "zebra"]
    assert [example.data for example in folder] == [files[name] for name in sorted(NAMES)]
    assert folder.labels == packed.labels == ["apple", "zebra"]
    assert len(packed) == 4


def test_webdataset_classes_stand_beside_the_images(tmp_path: Path) -> None:
    files = {"a/0001.png": png(1), "a/0001.cls": b"cat\n", "0002.png": png(2), "0002.cls": b"7"}
    source = open_images(pack(tmp_path / "shard.tar", files, prefix=""))
    assert [(example.name, example.label) for example in source] == [("0002.png", "7"), ("a/0001.png", "cat")]


def test_links_to_folders_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"1.png": png(1)})
    root = write(tmp_path / "images", {"own/2.png": png(2)})
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "own" / "up").symlink_to(root)
    assert [entry.name for entry in open_images(root).entries] == ["linked/1.png", "own/2.png"]


def test_limited_keeps_every_class(tmp_path: Path) -> None:
    source = open_images(
        write(tmp_path, {f"{label}/{index}.png": png(index) for label in "abc" for index in range(10)})
    )
    few = source.limited(6)
    assert [entry.label for entry in few.entries] == ["a", "a", "b", "b", "c", "c"]
    assert source.limited(30) is source
    assert source.limited(99) is source


def test_batches_hold_every_image_once_and_scaled(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = open_images(write(tmp_path, files))
    batches = list(source.batches(PREPROCESS, 3))
    assert [(start, pixels.shape) for start, pixels in batches] == [(0, (3, 3, 8, 8)), (3, (1, 3, 8, 8))]
    one = np.concatenate([pixels for _, pixels in source.batches(PREPROCESS, 1)])
    assert np.array_equal(one, np.concatenate([pixels for _, pixels in batches]))
    assert one.dtype == np.float32
    value = 20 + NAMES.index("apple/2.png")  # the first by name
    np.testing.assert_allclose(one[0, :, 4, 4], (np.array([value, 2 * value, 3 * value]) / 255 - 0.5) / 0.25, rtol=1e-6)


def test_missing_and_empty_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file or folder"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no images in .*none of its 0 files"):
        open_images(tmp_path)
    write(tmp_path, {"a.txt": b"x"})
    with pytest.raises(UsageError, match=r"none of its 1 files"):
        open_images(tmp_path)
    (tmp_path / "broken.tar").write_bytes(b"this is no tar at all")
    with pytest.raises(UsageError, match=r"broken\.tar is not an uncompressed tar"):
        open_images(tmp_path / "broken.tar")


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    source = open_images(write(tmp_path, {"a/good.png": png(1), "b/bad.png": png(2)[:40]}))
    with pytest.raises(ImageError, match=r"b/bad\.png"):
        list(source.batches(PREPROCESS, 8))
    thin = io.BytesIO()
    Image.new("RGB", (4000, 2)).save(thin, "PNG")
    with pytest.raises(ImageError, match=r"thin\.png.*4000×2"):
        list(open_images(write(tmp_path / "thin", {"thin.png": thin.getvalue()})).batches(PREPROCESS, 8))
    (tmp_path / "b/bad.png").unlink()
    with pytest.raises(ImageError, match=r"b/bad\.png.*cannot be read"):
        source[1]


def test_no_torch_is_loaded() -> None:
    code = "import sys, elude.exporter.images; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
