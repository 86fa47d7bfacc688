"""Check a bundle or a single file again, at any later time and on any images: what ``elude verify`` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elude.exporter.graph.stored_weights import splits_of
from elude.exporter.images import open_images
from elude.exporter.models.options import EMBEDDED, EMBEDDED_FOLDER
from elude.exporter.onnx_files.original_file import made_from_onnx, original_file
from elude.exporter.verify.check_onnx import verify_onnx
from elude.exporter.verify.report import Equivalence
from elude.handlers.bundle.bundle import Bundle, Source
from elude.handlers.bundle.device import CPU, providers_of
from elude.handlers.bundle.external_data import private_model
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import EquivalenceError, UsageError
from elude.handlers.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

    from elude.exporter.models.load import LoadedModel

IMAGES = 32


def verify_file(
    path: Path | str,
    images: Path | str | None = None,
    *,
    model: str | Path | nn.Module | LoadedModel | None = None,
    count: int = IMAGES,
    device: str = "cpu",
) -> Equivalence:
    """Compare a file with the model that it says it is made from.

    Args:
        path: a bundle or a ``model.onnx``. Of a bundle, every file is compared with its manifest first.
        images: a folder or .tar of real images; by default the embedded ones for the embedded
            model, else random ones stand in for the "real" inputs.
        model: the original, or its name; by default it is loaded by the name in the file.
        count: images, at most.
        device: where the file is run beside the CPU: ``cuda``, ``cuda:1``, or ``auto`` for a GPU if there is one.

    Raises:
        EquivalenceError: it does not equal the original, with the report; or the original's weights
            are others than the file names.
        BundleError, UsageError, ImageError: it cannot be read at all.
    """
    path = Path(path)
    with private_model(Bundle.open(path) if path.is_dir() else path) as (file, _):
        return _verify(file, images, model, count, device)


def _verify(
    file: Path, images: Path | str | None, model: str | Path | nn.Module | LoadedModel | None, count: int, device: str
) -> Equivalence:
    session = GraphSession(file)
    source = Source.from_json(json.loads(session.metadata["elude.source"]))
    preprocess = Preprocess.from_json(json.loads(session.metadata["elude.preprocess"]))
    if made_from_onnx(source):
        return _verify_onnx(file, images, model, count, session, source, preprocess)
    from elude.exporter.models.layers import find_layers
    from elude.exporter.models.original import load_original
    from elude.exporter.rewrite import graft
    from elude.exporter.verify.check import verify

    loaded = load_original(source, preprocess, str(model) if isinstance(model, Path) else model)
    _check_weights(loaded.source, source)
    splits = splits_of(file)
    layers = [find_layers(loaded.module, split.layer)[0] for split in splits]
    pixels = _pixels(images, preprocess, source, session, count)
    twin, others = graft(loaded.module, splits), [name for name in providers_of(device) if name != CPU]
    return verify(loaded.module, twin, file, splits, layers, pixels, images=count, providers=others)


def _verify_onnx(
    file: Path,
    images: Path | str | None,
    model: object,
    count: int,
    session: GraphSession,
    source: Source,
    preprocess: Preprocess,
) -> Equivalence:
    """Against the ONNX file that it was made from."""
    given = original_file(source, preprocess, session.output_kind, model)
    _check_weights(given.source, source)
    splits, layers = splits_of(file), {layer.name: layer for layer in given.graph()[1]}
    pixels = _pixels(images, preprocess, source, session, count)
    return verify_onnx(given, file, splits, [layers[split.layer] for split in splits], pixels)


def _check_weights(found: Source, named: Source) -> None:
    if found.weights_sha256 != named.weights_sha256:
        raise EquivalenceError(
            f"{named.model} has different weights from those the file was made from: sha256 "
            f"{found.weights_sha256[:12]}…, not {named.weights_sha256[:12]}….",
            "Export it again, or bring the old weights back.",
        )


def _pixels(
    images: Path | str | None, preprocess: Preprocess, source: Source, session: GraphSession, count: int
) -> NDArray[np.float32]:
    if count < 1:
        raise UsageError(f"count is {count}.", "Use 1 or more images.")
    if images is None and source.model == EMBEDDED:
        images = EMBEDDED_FOLDER / "evaluation.tar"
    if images is None:
        size = [edge if isinstance(edge, int) else 224 for edge in session.input_size]
        return np.random.default_rng(1).standard_normal((min(count, 8), *size)).astype(np.float32)
    _, pixels = next(open_images(images).limited(count).batches(preprocess, count))
    found: NDArray[np.float32] = pixels
    return found
