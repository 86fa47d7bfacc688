"""Which modules can be rewritten, and by which file."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from elude.exporter.rewrite.conv import ConvRows
from elude.exporter.rewrite.linear import LinearRows
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.errors import UnsupportedLayerError, UsageError

# Subclasses are refused unless known: one that standardises or quantises its weights first is not linear in them.
_LINEAR = {"torch.nn.modules.linear.Linear", "timm.layers.linear.Linear"}
_CONV = {"torch.nn.modules.conv.Conv2d", "timm.layers.conv2d_same.Conv2dSame"}


def rows_of(module: nn.Module, name: str) -> LinearRows | ConvRows:
    """What computes sub-units of ``module``.

    Raises:
        UnsupportedLayerError: if its class is not one that is linear in its weights.
    """
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    if isinstance(module, nn.Linear) and kind in _LINEAR:
        return LinearRows()
    if isinstance(module, nn.Conv2d) and kind in _CONV:
        return ConvRows(module)
    raise UnsupportedLayerError(f"{name} is a {kind}.", "Only nn.Linear and nn.Conv2d layers can be split.")


def find(model: nn.Module, split: LayerSplit) -> nn.Module:
    """The module that ``split`` belongs to.

    Raises:
        UsageError: if the model has no such module or it has another size.
    """
    try:
        module = model.get_submodule(split.layer)
    except AttributeError as error:
        raise UsageError(
            f"The model has no layer {split.layer!r}.", "Use the split with the model it was made from."
        ) from error
    weight = getattr(module, "weight", None)
    if weight is None or tuple(weight.shape[:2]) != split.masks.shape:
        shape = None if weight is None else tuple(weight.shape)
        raise UsageError(
            f"{split.layer}: its weight {shape} does not fit a split of {split.masks.shape}.",
            "Use the split with the model it was made from.",
        )
    return module


def check_distinct(splits: Sequence[LayerSplit]) -> None:
    """Refuse two splits of one layer.

    Raises:
        UsageError: naming the layer.
    """
    seen: set[str] = set()
    for split in splits:
        if split.layer in seen:
            raise UsageError(f"{split.layer} is split twice.", "Give one split a layer.")
        seen.add(split.layer)
