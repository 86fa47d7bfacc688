"""Loads a model by name: the embedded one, any of timm, of a hub, or a local folder.

Always float32, on the CPU, in eval mode.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
import timm
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from timm.data.config import resolve_model_data_config
from timm.data.imagenet_info import ImageNetInfo

from elude.handlers.bundle.bundle import Source
from elude.handlers.errors import UnsupportedLayerError, UsageError
from elude.handlers.images.preprocess import Preprocess

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"
RANDOM = "random:"
_SCHEMES = ("hf-hub:", "local-dir:")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be split.

    Attributes:
        module: in eval mode, float32, on the CPU, no parameter requires a gradient.
        preprocess: what it expects of an image.
        labels: what its outputs mean, or None for a headless model or unknown classes.
        source: where it came from.
    """

    module: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    source: Source


def load_model(name: str, *, pretrained: bool = True) -> LoadedModel:
    """Load a model.

    Args:
        name: ``embedded``, a timm name (``vit_small_patch14_dinov2.lvd142m``),
            ``hf-hub:OWNER/NAME[@REVISION]``, or a folder in timm's layout (``config.json`` and
            ``model.safetensors``), with or without ``local-dir:`` before it. ``random:`` before any
            of them gives it random weights, the same ones each time.
        pretrained: False is the same as ``random:`` before the name.

    Raises:
        UsageError: there is no such model, its weights cannot be downloaded, or its input is not three channels.
    """
    pretrained = pretrained and not name.startswith(RANDOM)
    name = name.removeprefix(RANDOM)
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
    return LoadedModel(
        module,
        _preprocess(name, module),
        _labels(address, cfg, module),
        _source(name if pretrained else RANDOM + name, address, cfg, module),
    )


def weights_sha256(module: nn.Module) -> str:
    """sha256 over the state dict: name, dtype, shape and bytes of each tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _address(name: str) -> str:
    """The name as timm wants it."""
    if name == EMBEDDED:
        return f"local-dir:{EMBEDDED_FOLDER / 'model'}"
    if name.startswith(_SCHEMES):
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
        else "timm.list_models() lists the names; a folder and 'hf-hub:OWNER/NAME' work too."
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
        f"or go on with random weights (pretrained=False, or 'random:{name}'), which says nothing on meaning.",
    )


def _cannot_build(name: str, address: str, error: Exception) -> UsageError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not address.startswith(_SCHEMES) and "tag" in reason:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        return UsageError(f"Model {name!r}: {reason}", f"Weights of this architecture: {', '.join(tags) or 'none'}.")
    return UsageError(
        f"Model {name!r} cannot be built: {reason}",
        "Check its name, its config.json and that its weights belong to it.",
    )


def _preprocess(name: str, module: nn.Module) -> Preprocess:
    config: dict[str, Any] = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    size = tuple(int(side) for side in config["input_size"])
    if len(size) != 3 or size[0] != 3:
        raise UnsupportedLayerError(
            f"Model {name!r} takes {size[0]} channels.", "Only models of three-channel images are supported."
        )
    mean, std = (tuple(float(v) for v in config[key]) for key in ("mean", "std"))
    return Preprocess(
        (3, size[1], size[2]), config["interpolation"], float(config["crop_pct"]), config["crop_mode"], mean, std
    )


def _labels(address: str, cfg: dict[str, Any], module: nn.Module) -> tuple[str, ...] | None:
    """The names in the model's own configuration; ImageNet-1k's only for models that timm itself published with them.

    A thousand outputs alone say nothing: a model of one's own may have as many, in an order of its own. Nor does the
    tag in a saved configuration, which fine-tuning keeps.
    """
    classes = int(getattr(module, "num_classes", 0) or 0)
    names = cfg.get("label_names")
    if names and len(names) == classes:
        return tuple(str(name) for name in names)
    published = not address.startswith(_SCHEMES) or address.startswith("hf-hub:timm/")
    if published and classes == 1000 and "in1k" in str(cfg.get("tag") or cfg.get("hf_hub_id") or ""):
        return tuple(ImageNetInfo("imagenet-1k").label_descriptions())
    return None


def _source(name: str, address: str, cfg: dict[str, Any], module: nn.Module) -> Source:
    if name.startswith(RANDOM):
        revision = "seed 0"
    elif address.startswith("hf-hub:"):
        revision = address.partition("@")[2] or "main"
    else:
        revision = str(cfg.get("tag") or "")
    return Source(name, revision, str(cfg.get("architecture") or type(module).__name__), weights_sha256(module))
