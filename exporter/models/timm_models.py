"""Models of timm: by name, from a hub, or from a folder in timm's layout."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
import timm
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from elude.exporter.models.any_module import finish
from elude.exporter.models.loaded import LoadedModel
from elude.exporter.models.options import EMBEDDED, EMBEDDED_FOLDER, ModelOptions, label_names
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import CLASSES, EMBEDDING
from elude.handlers.errors import UsageError
from elude.handlers.images.preprocess import Preprocess

RANDOM = "random:"
SCHEMES = ("hf-hub:", "local-dir:")
# Of timm's own weights those with as few outputs and no list of classes are the projections of image-text towers.
_WIDEST_PROJECTION = 1280
_IMAGENETS = ("in1k", "in12k", "in21k", "in22k")  # in a tag of timm: what the classes are of


def from_timm(name: str, options: ModelOptions, *, pretrained: bool) -> LoadedModel:
    """Load a model of timm; ``name`` as for ``elude.exporter.models.load.load_model``.

    Raises:
        UsageError: there is no such model, or its weights cannot be downloaded.
    """
    address = _address(name)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = timm.create_model(address, pretrained=pretrained)
    except (HfHubHTTPError, OfflineModeIsEnabled, ConnectionError, FileNotFoundError, OSError) as error:
        raise _cannot_reach(name, address, error) from error
    except (RuntimeError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise _cannot_build(name, address, error) from error
    module = module.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    cfg: dict[str, Any] = vars(module).get("pretrained_cfg", {})
    revision = "seed 0" if not pretrained else _revision(address, cfg)
    architecture = str(cfg.get("architecture") or type(module).__name__)
    source = Source(options.address(name if pretrained else RANDOM + name), revision, architecture, "")
    return finish(module, options.over(stated(name, cfg, module)), source)


def stated(name: str, cfg: Mapping[str, Any], module: nn.Module) -> ModelOptions:
    """What timm says of a model: preprocessing, labels, and whether it returns classes or an embedding."""
    outputs = int(getattr(module, "num_classes", 0) or 0)
    if outputs == 0 or _is_projection(name, cfg, outputs):
        return ModelOptions(kind=EMBEDDING, preprocess=_preprocess(module))
    kind = CLASSES if outputs > 1 else None
    return ModelOptions(kind=kind, preprocess=_preprocess(module), labels=_labels(name, cfg, outputs))


def _published(name: str) -> bool:
    """Whether timm itself published the weights: only then its lists of classes say what they mean."""
    own = name == EMBEDDED or name.startswith("local-dir:") or Path(name).is_dir()
    return not own and (not name.startswith("hf-hub:") or name.startswith("hf-hub:timm/"))


def _is_projection(name: str, cfg: Mapping[str, Any], outputs: int) -> bool:
    stated = int(cfg.get("num_classes") or 0)
    known = cfg.get("label_names") or infer_imagenet_subset({"num_classes": stated})
    return (
        _published(name) and outputs == stated and not known and outputs <= _WIDEST_PROJECTION and bool(cfg.get("tag"))
    )


def _labels(name: str, cfg: Mapping[str, Any], outputs: int) -> tuple[str, ...] | None:
    """The names in the model's own configuration, or ImageNet's for models that timm itself published with them.

    As many outputs alone say nothing: a model of one's own may have as many, in an order of its own. Nor does the tag
    in a saved configuration, which fine-tuning keeps.
    """
    named = cfg.get("label_names")
    if named:
        described: Mapping[str, str] = cfg.get("label_descriptions") or {}
        try:
            labels = label_names(named, outputs)
        except UsageError as error:
            raise UsageError(f"Model {name!r}: {error.message}", "Correct label_names in its config.json.") from error
        return tuple(described.get(label, label) for label in labels)
    subset = infer_imagenet_subset({"num_classes": outputs})
    tag = str(cfg.get("tag") or cfg.get("hf_hub_id") or "")
    trained = _published(name) and any(part in tag for part in _IMAGENETS)
    return None if subset is None or not trained else tuple(ImageNetInfo(subset).label_descriptions())


def _revision(address: str, cfg: Mapping[str, Any]) -> str:
    if address.startswith("hf-hub:"):
        return address.partition("@")[2] or "main"
    return str(cfg.get("tag") or "")


def _address(name: str) -> str:
    """The name as timm wants it."""
    if name == EMBEDDED:
        return f"local-dir:{EMBEDDED_FOLDER / 'model'}"
    if name.startswith(SCHEMES):
        return name
    if Path(name).is_dir():
        return f"local-dir:{name}"
    if timm.is_model(name.partition(".")[0]):
        return name
    if "/" in name or "\\" in name:
        raise UsageError(
            f"There is no model {name!r}: no such folder.",
            f"For a model of the Hugging Face hub write 'hf-hub:{name}'.",
        )
    close = difflib.get_close_matches(name, [*timm.list_models(), *timm.list_pretrained(), EMBEDDED], 5)
    hint = (
        f"Did you mean {', '.join(close)}?"
        if close
        else "timm.list_models() lists the names; a folder, 'hf-hub:OWNER/NAME', 'torchvision:NAME' and "
        "'package.module:factory' work too."
    )
    raise UsageError(f"There is no model {name!r}.", hint)


def _cannot_reach(name: str, address: str, error: Exception) -> UsageError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if address.startswith("local-dir:"):
        return UsageError(
            f"Model {name!r} cannot be read: {reason}.", "The folder must hold config.json and model.safetensors."
        )
    return UsageError(
        f"The weights of {name!r} cannot be fetched from the model hub: {reason}",
        "Check the name and the network; or fetch the model elsewhere and give its folder (config.json and "
        "model.safetensors); "
        f"or continue with random weights (pretrained=False, or 'random:{name}'), which says nothing about meaning.",
    )


def _cannot_build(name: str, address: str, error: Exception) -> UsageError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not address.startswith(SCHEMES) and "tag" in reason:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        return UsageError(f"Model {name!r}: {reason}", f"Weights of this architecture: {', '.join(tags) or 'none'}.")
    return UsageError(
        f"Model {name!r} cannot be built: {reason}",
        "Check its name, its config.json and that its weights belong to it.",
    )


def _preprocess(module: nn.Module) -> Preprocess:
    config: dict[str, Any] = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    channels, height, width = (int(side) for side in config["input_size"])
    mean, std = (tuple(float(v) for v in config[key]) for key in ("mean", "std"))
    if len(mean) != channels:  # timm states three numbers for models of any number of channels
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    return Preprocess(
        (channels, height, width), config["interpolation"], float(config["crop_pct"]), config["crop_mode"], mean, std
    )
