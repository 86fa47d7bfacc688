"""The original model of a bundle or a file, loaded again from what they name."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from elude.exporter.models.any_module import OBJECT, is_factory
from elude.exporter.models.load import LoadedModel, load_any, load_model
from elude.exporter.models.options import ONNX, parse_address
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import CLASSES
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess


def load_original(
    source: Source, preprocess: Preprocess, model: str | nn.Module | LoadedModel | None = None
) -> LoadedModel:
    """The model that a bundle was made from.

    Args:
        source: as the bundle names it.
        preprocess: of the bundle.
        model: the model itself, or its name; needed where it was handed over as an object or comes from a factory,
            as a bundle must not decide what code is run.

    Raises:
        UsageError: it cannot be loaded by its name, or not at all.
    """
    if isinstance(model, LoadedModel):
        return model
    name, said = parse_address(source.model)
    if name.startswith(ONNX):
        raise UsageError(
            f"The original is the file {name.removeprefix(ONNX)}, which has no torch model.",
            "What needs one cannot be done; 'elude verify --model FILE.onnx' compares with the file, and 'elude export "
            "--evaluation IMAGES' measures on held-out images.",
        )
    if not (name.startswith(OBJECT) or is_factory(name)):
        return load_model(source.model) if model is None else load_any(model, said)
    if model is None:
        raise UsageError(
            f"The original is {name!r}, which is code that a bundle must not start by itself.",
            "Give it: the model as an object, or --model package.module:factory.",
        )
    # Classes is what needs not be said, as labels are enough for it.
    return load_any(model, replace(said, kind=said.kind or CLASSES, preprocess=preprocess))
