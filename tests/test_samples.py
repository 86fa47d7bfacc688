"""``elude samples``: the images are real ones of the evaluation set, and nothing is overwritten."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elude.cli import app
from elude.cli.sample_images import write_samples
from elude.handlers.errors import UsageError
from elude.quality.suites.open_suite import EMBEDDED


def test_each_class_has_its_images_byte_for_byte(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["samples", "--out", str(tmp_path / "photos"), "--per-class", "3"])
    assert done.exit_code == 0, done.output
    written = sorted((tmp_path / "photos").rglob("*.png"))
    with tarfile.open(EMBEDDED) as tar:
        held = {
            file.read(): Path(member.name).parent.name
            for member in tar.getmembers()
            if (file := tar.extractfile(member)) is not None
        }
    assert len(written) == 3 * len(set(held.values()))
    assert len({path.read_bytes() for path in written}) == len(written)
    assert all(held[path.read_bytes()] == path.parent.name for path in written)
    assert (tmp_path / "photos" / "bag" / "bag-03.png") in written


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_samples(tmp_path, 1)
    with pytest.raises(UsageError, match="exists already"):
        write_samples(tmp_path / "mine.txt", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert write_samples(tmp_path, 1)[0] == len(list(tmp_path.rglob("*.png"))) > 1
