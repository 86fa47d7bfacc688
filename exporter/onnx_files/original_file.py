"""The ONNX file that a bundle was made from, read again as it was then. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from elude.exporter.models.options import ONNX, ModelOptions, parse_address
from elude.exporter.onnx_files.read_file import OnnxFile, read_onnx
from elude.handlers.bundle.bundle import Source
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess


def made_from_onnx(source: Source) -> bool:
    """Whether an ONNX file is all there is of an original: there is no torch model to compare with or to attack."""
    return source.model.startswith(ONNX)


def original_file(source: Source, preprocess: Preprocess, kind: str, model: object) -> OnnxFile:
    """The original.

    Args:
        source: as the bundle names it.
        preprocess: of the bundle.
        kind: what its outputs mean.
        model: path of the file.

    Returns:
        the file; whether it is the same one, its hash says.

    Raises:
        UsageError: ``model`` is not a path.
    """
    name, said = parse_address(source.model)
    if not isinstance(model, (str, Path)):
        raise UsageError(f"It was made from the file {name.removeprefix(ONNX)}.", "Give it: --model FILE.onnx.")
    return read_onnx(Path(model), ModelOptions(kind=kind, preprocess=preprocess).over(said))
