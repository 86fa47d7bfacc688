"""One changed byte anywhere in a packed archive: a stock TorchServe does not load it, and its log tells which file
it was.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from _serving import images, make_bundle
from _stock import stock

from elude.handlers.errors import UsageError
from elude.handlers.torchserve.check_archive import take_in
from elude.model_store.archive import package

pytestmark = pytest.mark.server
FILES = (
    "bundle/model.onnx",
    "bundle/labels.json",
    "bundle/manifest.json",
    "elude/handlers/service.py",
    "contents.json",
    "model-config.yaml",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    return package(make_bundle(folder / "b"), folder, name="whole", version="1.0")


def flipped(archive: Path, target: Path, entry: str) -> int:
    """Flip one bit in the file as it lies on the disk; gives the checksum that the archive has for the entry."""
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as content:
        info = content.getinfo(entry)
    start = info.header_offset + 30 + len(info.filename.encode())
    data[start + info.file_size // 2] ^= 1
    target.write_bytes(data)
    return info.CRC


def repacked(archive: Path, target: Path, entry: str) -> None:
    """Flip one bit of a file and pack again with checksums that fit, as a person would."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for each in old.namelist():
            content = bytearray(old.read(each))
            if each == entry:
                content[len(content) // 2] ^= 1
            new.writestr(each, bytes(content))


def test_a_flipped_byte_fails_the_checksum_which_tells_the_file(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "whole.mar").write_bytes(archive.read_bytes())
    sums = {}
    for i, entry in enumerate(FILES):
        sums[entry] = flipped(archive, tmp_path / "models" / f"bad{i}.mar", entry)
        with pytest.raises(UsageError, match=f"{entry} was changed"):  # what `elude serve` says before it starts
            take_in(tmp_path / "models" / f"bad{i}.mar", tmp_path / "copy.mar")
    with stock(tmp_path) as server:
        server.wait(lambda: server.ask("whole", images(1)[0])[0] == 200)
        log = server.log()
    for i, entry in enumerate(FILES):
        assert f"Failed to load model: {tmp_path}/models/bad{i}.mar" in log
        assert f"invalid entry CRC (expected {sums[entry]:#x}" in log  # of this entry and no other
    assert len(set(sums.values())) == len(FILES)


@pytest.mark.parametrize(
    "entry", ["bundle/catalogue.sqlite", "bundle/labels.json", "elude/handlers/service.py", "contents.json"]
)
def test_a_changed_byte_with_a_right_checksum_is_named(archive: Path, tmp_path: Path, entry: str) -> None:
    (tmp_path / "models").mkdir()
    repacked(archive, tmp_path / "models" / "whole.mar", entry)
    with stock(tmp_path) as server:
        server.wait(lambda: f"The archive is damaged: {entry}" in server.log())
        assert server.ask("whole", images(1)[0])[0] != 200
