"""Loads a model by name: the embedded one, any of timm, torchvision or transformers, a local folder, or a factory.

Always float32, on the CPU, in eval mode.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from elude.exporter.models.any_module import OBJECT, from_factory, from_module, is_factory
from elude.exporter.models.loaded import LoadedModel, weights_sha256
from elude.exporter.models.options import EMBEDDED, EMBEDDED_FOLDER, ModelOptions, parse_address
from elude.exporter.models.timm_models import RANDOM, SCHEMES, from_timm, stated
from elude.handlers.errors import UsageError
from elude.handlers.files import read_json

__all__ = [
    "EMBEDDED",
    "EMBEDDED_FOLDER",
    "RANDOM",
    "LoadedModel",
    "ModelOptions",
    "load_any",
    "load_model",
    "weights_sha256",
]
TORCHVISION = "torchvision:"
_WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def load_model(name: str, *, pretrained: bool = True, options: ModelOptions = ModelOptions()) -> LoadedModel:
    """Load a model.

    Args:
        name: ``embedded``; a timm name (``vit_small_patch14_dinov2.lvd142m``);
            ``hf-hub:OWNER/NAME[@REVISION]``; a folder in the layout of timm or of transformers (``config.json`` and
            ``model.safetensors``), with or without ``local-dir:`` before it; ``torchvision:NAME[.WEIGHTS]``; or
            ``package.module:factory``. ``random:`` before any but the last gives it random weights, the same ones
            each time. Behind a ``?`` there may be choices: ``NAME?output=pooler_output&kind=embedding``.
        pretrained: False is the same as ``random:`` before the name.
        options: choices; they override those in the name.

    Raises:
        UsageError: there is no such model, its weights cannot be downloaded, or something must be chosen.
        UnsupportedLayerError: it cannot be run.
    """
    name, said = parse_address(name)
    options = options.over(said)
    pretrained = pretrained and not name.startswith(RANDOM)
    name = name.removeprefix(RANDOM)
    if name.startswith(OBJECT):
        raise UsageError(
            f"{name.removeprefix(OBJECT)} was handed over as an object, so it cannot be loaded by name.",
            "Give the model again, or export it from a factory 'package.module:factory'.",
        )
    if Path(name).suffix.lower() in _WEIGHTS and not Path(name).is_dir():
        raise UsageError(
            f"{name} is a file of weights, which does not say what model they belong to.",
            "Load them into the model and export that: from Python, or from a factory 'package.module:factory'; "
            "'torchvision:NAME?weights=FILE' does it for torchvision's.",
        )
    if name.startswith(TORCHVISION):
        from elude.exporter.models.torchvision_models import from_torchvision

        return from_torchvision(name.removeprefix(TORCHVISION), options, pretrained=pretrained)
    if is_factory(name) and not name.startswith(SCHEMES):
        return from_factory(name, options)
    if _is_transformers(Path(name.removeprefix("local-dir:"))):
        from elude.exporter.models.transformers_models import from_transformers

        return from_transformers(Path(name.removeprefix("local-dir:")), options, pretrained=pretrained)
    return from_timm(name, options, pretrained=pretrained)


def load_any(model: str | nn.Module | LoadedModel, options: ModelOptions = ModelOptions()) -> LoadedModel:
    """A model by name, as a module, or loaded already."""
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, str):
        return load_model(model, options=options)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"A model cannot be made of {type(model).__name__}.",
            "Give a model's name, a torch.nn.Module, or a .onnx file; weights alone go into a module first: "
            "module.load_state_dict(...).",
        )
    cfg = vars(model).get("pretrained_cfg")  # a model that timm made says how it wants its images
    return from_module(model, options, stated=ModelOptions() if cfg is None else stated("local-dir:", cfg, model))


def _is_transformers(folder: Path) -> bool:
    """Whether a folder is in the layout of transformers, which says ``model_type`` where timm says ``architecture``."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False  # timm's loader says what is wrong with it
    return isinstance(config, dict) and "model_type" in config and "architecture" not in config
