"""Vision models of transformers from a folder that ``save_pretrained`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which transformers imports

# isort: split
from torch import nn

from elude.exporter.models.any_module import finish
from elude.exporter.models.loaded import LoadedModel, crop_share
from elude.exporter.models.options import ModelOptions
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import CLASSES, EMBEDDING, MULTI_LABEL, REGRESSION
from elude.handlers.errors import UsageError
from elude.handlers.files import read_json
from elude.handlers.images.preprocess import Preprocess

_PROBLEMS = {"multi_label_classification": MULTI_LABEL, "regression": REGRESSION}
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def from_transformers(folder: Path, options: ModelOptions, *, pretrained: bool) -> LoadedModel:
    """Load a model whose first argument is ``pixel_values``.

    Args:
        folder: with ``config.json``, ``model.safetensors`` and, unless ``options`` give the preprocessing,
            ``preprocessor_config.json``. No code in it is run.
        options: ``part`` names another class than the configuration, e.g. ``CLIPVisionModelWithProjection``.
        pretrained: False for random weights.

    Raises:
        UsageError: transformers is not installed, the folder cannot be used, or something must be chosen.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"{folder} is a model of transformers, which is not installed.", "Run: pip install transformers"
        ) from error
    config = _read(folder / "config.json")
    part = options.part or next(iter(config.get("architectures") or []), None)
    if part is None or not hasattr(transformers, part):
        raise UsageError(
            f"{folder} names the class {part!r}, which transformers does not have.", "Choose one: part='…'."
        )
    own = getattr(transformers, part)
    if getattr(own, "main_input_name", "pixel_values") != "pixel_values":
        raise UsageError(
            f"{part} does not take images alone.", "Choose its image tower: part='…', e.g. 'CLIPVisionModel'."
        )
    module = _build(own, folder, pretrained)
    module = module.to(torch.float32).eval().requires_grad_(False)
    said = options.over(_stated(config, options, folder))
    name = str(folder) if pretrained else f"random:{folder}"
    return finish(module, said, Source(options.address(name), "" if pretrained else "seed 0", part, ""))


def _build(own: Any, folder: Path, pretrained: bool) -> nn.Module:
    # eager: the form of attention that exports for every model
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if pretrained:
                module: nn.Module = own.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, attn_implementation="eager"
                )
            else:
                configuration = own.config_class.from_pretrained(folder, local_files_only=True)
                configuration._attn_implementation = "eager"
                module = own(configuration)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(f"{folder} cannot be loaded as {own.__name__}: {reason}") from error
    return module


def _stated(config: dict[str, Any], options: ModelOptions, folder: Path) -> ModelOptions:
    """What the folder says: classes with their names where the output is ``logits``, else an embedding."""
    part = options.part or next(iter(config.get("architectures") or []), "")
    preprocess = options.preprocess or preprocess_of(folder)
    if not part.endswith("ForImageClassification") or options.output not in (None, "logits"):
        return ModelOptions(kind=EMBEDDING, preprocess=preprocess)
    kind = _PROBLEMS.get(config.get("problem_type") or "", CLASSES)
    names = {int(number): name for number, name in (config.get("id2label") or {}).items()}
    unnamed = all(name == f"LABEL_{number}" for number, name in names.items())
    return ModelOptions(kind=kind, preprocess=preprocess, labels=None if unnamed else names)


def preprocess_of(folder: Path) -> Preprocess:
    path = next((folder / name for name in _PROCESSORS if (folder / name).is_file()), None)
    if path is None:
        raise UsageError(
            f"{folder} has no preprocessor_config.json, so it is not known how its model wants its images.",
            "Save its image processor there, or give the preprocessing.",
        )
    stated = _read(path)
    stated = stated.get("image_processor", stated)
    try:
        return _geometry(stated)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be used: {type(error).__name__}: {error}.", "Give the preprocessing."
        ) from error


def _geometry(stated: dict[str, Any]) -> Preprocess:
    interpolation = Image.Resampling(stated.get("resample", Image.Resampling.BILINEAR)).name.lower()
    size = stated["size"] if isinstance(stated["size"], dict) else {"height": stated["size"], "width": stated["size"]}
    crop = stated.get("crop_size") if stated.get("do_center_crop") else None
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    share, mode = 1.0, "squash"
    if crop is not None:
        shorter = size.get("shortest_edge") or size["height"]
        height, width = int(crop["height"]), int(crop["width"])
        share, mode = crop_share(height, int(shorter)), "center-floor"
    elif "shortest_edge" in size:  # ConvNeXt's own: resized by crop_pct, then cut
        height = width = int(size["shortest_edge"])
        share, mode = (
            float(stated.get("crop_pct", 1.0)) if height < 384 else 1.0,
            "center-floor" if height < 384 else "squash",
        )
    else:
        height, width = int(size["height"]), int(size["width"])
    normalised = stated.get("do_normalize", True)
    mean = tuple(float(v) for v in stated["image_mean"]) if normalised else (0.0,) * 3
    std = tuple(float(v) for v in stated["image_std"]) if normalised else (1.0,) * 3
    if abs(float(stated.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise ValueError(f"rescale_factor is {stated['rescale_factor']}, not 1/255")
    return Preprocess((len(mean), height, width), interpolation, share, mode, mean, std)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a JSON object.")
    return content
