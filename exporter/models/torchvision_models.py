"""Classifiers of torchvision, ``torchvision:NAME[.WEIGHTS]``: its own weights, random ones, or those of a file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision

# isort: split
from torch import nn
from torchvision import models

from elude.exporter.models.any_module import finish
from elude.exporter.models.loaded import LoadedModel, crop_share
from elude.exporter.models.options import ModelOptions
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import CLASSES
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess


def from_torchvision(name: str, options: ModelOptions, *, pretrained: bool) -> LoadedModel:
    """Load a classifier of torchvision.

    Args:
        name: of the model, and behind a dot of the weights (``resnet50.IMAGENET1K_V2``); by default torchvision's best.
        options: ``weights`` names a file (``.safetensors``, or a state dict of torch) with weights of one's own.
        pretrained: False for random weights.

    Raises:
        UsageError: no such model or weights, or the file does not fit.
    """
    model, _, version = name.partition(".")
    if model not in models.list_models(module=models):
        close = difflib.get_close_matches(model, models.list_models(module=models), 5)
        raise UsageError(f"torchvision has no classifier {model!r}.", f"Did you mean {', '.join(close)}?")
    choices = models.get_model_weights(model)
    if version and version not in choices.__members__:
        raise UsageError(
            f"torchvision has no weights {version!r} of {model}.", f"It has {', '.join(choices.__members__)}."
        )
    weights = choices[version] if version else choices.DEFAULT
    said = options.over(ModelOptions(kind=CLASSES, preprocess=preprocess_of(weights.transforms())))
    if options.weights is not None:
        module, revision = _with_file(model, Path(options.weights)), Path(options.weights).name
    else:
        module, revision = _build(model, weights if pretrained else None), weights.name if pretrained else "seed 0"
        categories = [str(label) for label in weights.meta["categories"]]
        said = said.over(ModelOptions(labels=categories))
    module = module.to(torch.float32).eval().requires_grad_(False)
    prefix = "" if pretrained or options.weights is not None else "random:"
    return finish(module, said, Source(options.address(f"{prefix}torchvision:{name}"), revision, model, ""))


def _build(model: str, weights: Any, **arguments: Any) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module: nn.Module = models.get_model(model, weights=weights, **arguments)
    except OSError as error:
        raise UsageError(
            f"The weights of torchvision's {model} cannot be downloaded: {error}.",
            "Check the network, give a file: '?weights=FILE', or continue with random weights: 'random:' before the "
            "name.",
        ) from error
    return module


def _with_file(model: str, path: Path) -> nn.Module:
    """The model with the weights of a file; the number of its outputs is that of the last bias or weight in it."""
    try:
        state: dict[str, torch.Tensor] = (
            safetensors.torch.load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        outputs = len(next(reversed(state.values())))
        module = _build(model, None, num_classes=outputs)
        module.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError, TypeError, StopIteration) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            f"{path} does not hold weights of torchvision's {model}: {reason}", "Save its state_dict()."
        ) from error
    return module


def preprocess_of(transforms: Any) -> Preprocess:
    """torchvision's ``ImageClassification``: resize the shorter side, cut the centre."""
    (crop,), (shorter,) = transforms.crop_size, transforms.resize_size
    return Preprocess(
        (3, crop, crop),
        transforms.interpolation.value,
        crop_share(crop, shorter),
        "center",
        tuple(transforms.mean),
        tuple(transforms.std),
    )
