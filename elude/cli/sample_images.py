"""The embedded evaluation set as files."""

from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from pathlib import Path

from elude.handlers.errors import UsageError
from elude.quality.suites.open_suite import EMBEDDED


def write_samples(out: Path, per_class: int) -> tuple[int, int]:
    """Write the first ``per_class`` images of each class, byte for byte, as ``out/bag/bag-01.png``.

    Returns:
        the number of images and of classes.

    Raises:
        UsageError: ``out`` is not a folder, or has files in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already.", "Name a new or empty folder with --out.")
    written: Counter[str] = Counter()
    with tarfile.open(EMBEDDED) as tar:
        for member in sorted(tar.getmembers(), key=lambda entry: entry.name):
            label = Path(member.name).parent.name
            source = tar.extractfile(member)  # None of a folder
            if source is None or written[label] == per_class:
                continue
            written[label] += 1
            target = out / label / f"{label}-{written[label]:02}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("xb") as file:
                shutil.copyfileobj(source, file)
    return written.total(), len(written)
