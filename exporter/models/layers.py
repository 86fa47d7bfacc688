"""Which layers of a model can be split: linear layers and convolutions whose weights are used as they stand."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elude.exporter.models.trial import Trial
from elude.handlers.bundle.identifiers import parse_id
from elude.handlers.errors import UnsupportedLayerError, UsageError

_DEFAULTS = ("last", "default")
# By name, so that timm need not be loaded. Other subclasses may standardise, quantise or mask their weights first.
_PLAIN = {
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.conv.Conv2d",
    "timm.layers.linear.Linear",
    "timm.layers.conv2d_same.Conv2dSame",
}


@dataclass(frozen=True)
class Layer:
    """A layer z = W q + b that can be split.

    Attributes:
        name: path of the module within the model.
        kind: ``linear`` or ``conv``.
        module: the layer itself.
        units: outputs of a linear layer, output channels of a convolution.
        inputs: contributions per unit: inputs of a linear layer, input channels of one group of a convolution.
        groups: groups of a convolution, 1 for a linear layer.
        window: kernel positions of a convolution, 1 for a linear layer.
    """

    name: str
    kind: Literal["linear", "conv"]
    module: nn.Linear | nn.Conv2d
    units: int
    inputs: int
    groups: int
    window: int

    def weight(self) -> NDArray[np.float32]:
        """float32 (units, inputs, *kernel)."""
        return self.module.weight.detach().float().cpu().numpy()

    def bias(self) -> NDArray[np.float32] | None:
        """float32 (units,), None where it has none."""
        return None if self.module.bias is None else self.module.bias.detach().float().cpu().numpy()


def find_layers(model: nn.Module, pattern: str, trial: Trial | None = None, *, headless: bool = False) -> list[Layer]:
    """The layers whose path matches, in the model's order.

    Args:
        model: any torch model.
        pattern: a path, several separated by commas, or with ``*`` and ``?`` (which match dots
            too), e.g. ``blocks.*.fc2``. A pattern with wildcards passes over modules of other
            kinds. ``last`` (or ``default``) is ``mlp.fc2`` of the last block where there are such
            blocks, else the last layer before the head that sees more than one place of an image.
        trial: a forward pass that watched ``splittable(model)``; ``last`` needs it where there are no such blocks.
        headless: the model returns an embedding, so that its last layer is no head.

    Raises:
        UsageError: nothing matches.
        UnsupportedLayerError: what matches cannot be split; says why.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    chosen: set[str] = set()
    for part in (part.strip() for part in pattern.split(",")):
        matches = [name for name in modules if fnmatchcase(name, part)]
        if part in _DEFAULTS:
            matches = [_last(modules, trial, headless)]
        reasons = {name: reason for name in matches if (reason := why_not(name, modules[name]))}
        # Passing over a norm or an activation is what a wildcard is for; passing over a layer that
        # looks splittable would mislead.
        odd = [name for name in reasons if isinstance(modules[name], (nn.Linear, nn.Conv2d))]
        if odd or (matches and len(reasons) == len(matches)):
            name = (odd or matches)[0]
            raise UnsupportedLayerError(f"Layer {name!r} cannot be split: {reasons[name]}.", _available(modules, name))
        if not matches:
            raise UsageError(f"No layer matches {part!r}.", _available(modules, part))
        chosen |= set(matches) - set(reasons)
    return [_layer(name, module) for name, module in modules.items() if name in chosen]


def splittable(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that can be split if the model calls them once, by path."""
    return {name: module for name, module in model.named_modules() if name and not why_not(name, module)}


def why_not(name: str, module: nn.Module) -> str:
    """Why a module cannot be split; empty when it can."""
    if not isinstance(module, (nn.Linear, nn.Conv2d)):
        return (
            f"it is a {type(module).__name__}, and only linear layers and 2-d convolutions are sums of weighted inputs"
        )
    if parametrize.is_parametrized(module):
        return "its weights are computed from other parameters (parametrized)"
    if f"{type(module).__module__}.{type(module).__qualname__}" not in _PLAIN:
        return f"{type(module).__name__} may change its weights or its input in its own forward"
    if not all(part.replace("_", "").isalnum() and part.isascii() for part in name.split(".")):
        return "its path holds other characters than letters, digits, '_' and '.', so its sub-units could not be named"
    return ""


def _layer(name: str, module: nn.Module) -> Layer:
    parse_id(f"{name}/u0")
    if isinstance(module, nn.Linear):
        return Layer(name, "linear", module, module.out_features, module.in_features, 1, 1)
    assert isinstance(module, nn.Conv2d)
    window = module.kernel_size[0] * module.kernel_size[1]
    return Layer(name, "conv", module, module.out_channels, module.in_channels // module.groups, module.groups, window)


def _last(modules: dict[str, nn.Module], trial: Trial | None, headless: bool) -> str:
    blocks = [
        name
        for name, module in modules.items()
        if re.search(r"(^|\.)\d+\.mlp\.fc2$", name) and not why_not(name, module)
    ]
    if blocks:
        return blocks[-1]
    if trial is None:
        raise UsageError("The model has no block with an 'mlp.fc2' to split by default.", _available(modules, "fc2"))
    return _last_before_head(modules, trial, headless)


def _last_before_head(modules: dict[str, nn.Module], trial: Trial, headless: bool) -> str:
    """The last layer in the order of execution that sees several places of an image, the head left out.

    After the pooling there is one place only: those layers come into question only where there are no others, as in
    a chain of linear layers. A unit with a single input cannot be split.
    """
    order = [name for name in trial.order if trial.calls[name] == 1 and trial.rows.get(name, 0) > 0]
    candidates = [name for name in order if _layer(name, modules[name]).inputs > 1]
    candidates = [name for name in candidates if trial.rows[name] > 1] or candidates
    width = trial.output.shape[-1] if isinstance(trial.output, Tensor) else None
    if not headless and len(candidates) > 1 and _layer(candidates[-1], modules[candidates[-1]]).units == width:
        candidates.pop()
    if not candidates:
        raise UsageError("The model has no layer to split by default.", _available(modules, "fc2"))
    return candidates[-1]


def _available(modules: dict[str, nn.Module], wanted: str, count: int = 8) -> str:
    """A sentence with the paths that can be split, the most alike first, then the deepest."""
    names = [name for name, module in modules.items() if not why_not(name, module)]
    if not names:
        return "The model has no layer that can be split."
    close = difflib.get_close_matches(wanted, names, count, cutoff=0.6)
    rest = [name for name in reversed(names) if name not in close]
    return f"Layers that can be split: {', '.join([*close, *rest][:count])}{', …' if len(names) > count else ''}."
