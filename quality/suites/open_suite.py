"""Open a suite by what names it: ``embedded``, a ``suite.toml``, or plain images with a class each."""

from __future__ import annotations

from pathlib import Path

from elude.exporter.images import open_images
from elude.quality.suites.image_sets import EncodedSet
from elude.quality.suites.sources import open_source
from elude.quality.suites.suite import Suite
from elude.quality.suites.suite_file import load_suite

EMBEDDED = Path(__file__).parents[2] / "exporter" / "embedded" / "evaluation.tar"


def open_suite(path: str | Path, *, name: str | None = None, dark_background: bool = False) -> Suite:
    """Open a suite.

    Args:
        path: ``embedded``, the one shipped with the project; a ``suite.toml`` or a folder that
            holds one; else images as for ``elude.quality.suites.sources.open_source``, with one
            sub-folder per class.
        name: for reports, of plain images.
        dark_background: of plain images, see :class:`Suite`.

    Raises:
        UsageError, EvaluationError: if there are no images, or images without a class.
    """
    if str(path) == "embedded":
        return embedded_suite()
    file = Path(path) / "suite.toml" if Path(path).is_dir() else Path(path)
    if file.suffix == ".toml" and file.is_file():
        return load_suite(file)
    return Suite(name or Path(path).stem, EncodedSet(open_source(str(path))), dark_background=dark_background)


def embedded_suite() -> Suite:
    """1,000 garments of Fashion-MNIST, on black."""
    return Suite("embedded", EncodedSet(open_images(EMBEDDED)), dark_background=True)
