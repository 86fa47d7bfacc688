"""Every layer of every family that can be split, all at once: both forms equal the model on real, random and extreme
images.

The models are small and of random weights: what is shown is that their structure is rewritten
    rightly, whatever the weights.
"""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from _families import FAMILIES, small
from _graphs import random_split
from _weight_edit import weights_edited
from torch import Tensor, nn

from elude.exporter.images import open_images
from elude.exporter.models.layers import Layer, find_layers, why_not
from elude.exporter.models.load import EMBEDDED_FOLDER
from elude.exporter.models.walk import watch
from elude.exporter.rewrite import explicit, graft
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.edits import Edit
from elude.handlers.images.preprocess import Preprocess

SLOW = {"efficientnet", "efficientnet_same"}  # at their own width; MobileNet has the same kinds of layers
KINDS = ("real", "random", "zeros", "huge", "tiny")


def layers_of(model: nn.Module, side: int) -> list[Layer]:
    """All layers that can be split and run once."""
    names = [name for name, module in model.named_modules() if name and not why_not(name, module)]
    layers = find_layers(model, ",".join(names))
    with torch.no_grad(), watch(layers) as seen:
        model(torch.zeros(1, 3, side, side))
    return [layer for layer in layers if len(seen.get(layer.name, [])) == 1]


@cache
def case(family: str) -> tuple[nn.Module, tuple[LayerSplit, ...], int]:
    name, options, pattern, side = FAMILIES[family]
    model = small(name, options)
    layers = layers_of(model, side)
    assert {layer.name for layer in find_layers(model, pattern)} <= {layer.name for layer in layers}
    return model, tuple(random_split(layer, seed) for seed, layer in enumerate(layers)), side


def images(kind: str, side: int) -> Tensor:
    if kind == "real":
        source = open_images(EMBEDDED_FOLDER / "evaluation.tar").limited(2)
        preprocess = Preprocess((3, side, side), "bicubic", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
        return torch.from_numpy(next(source.batches(preprocess, 2))[1])
    random = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    return random * {"random": 1.0, "zeros": 0.0, "huge": 1e6, "tiny": 1e-30}[kind]


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FAMILIES]
)
@torch.no_grad()
def test_both_forms_equal_the_model(family: str) -> None:
    model, splits, side = case(family)
    truth: dict[str, Tensor] = {}
    for dtype in (torch.float64, torch.float32):
        original = copy.deepcopy(model).to(dtype)
        twin, rewritten = graft(original, splits), explicit(original, splits)
        for kind in KINDS:
            x = images(kind, side).to(dtype)
            expected, got = original(x), rewritten(x)
            assert torch.isfinite(expected).all()
            assert torch.equal(twin(x), expected), kind
            scale = max(1.0, float(expected.abs().max()))
            if dtype == torch.float64:
                truth[kind] = expected
                assert (got - expected).abs().max() < 1e-11 * scale, (
                    kind
                )  # 1.9e-12 on one processor, whose kernels add in another order
            else:  # as near to the right answer as the original is, which rounds at every layer too
                own = float((expected.double() - truth[kind]).abs().max())
                assert (got.double() - truth[kind]).abs().max() < 8 * own + 1e-6 * scale, kind
            units = twin.units(x)
            for name, values in twin.sub_units(x).items():
                split = next(split for split in splits if split.layer == name)
                merged = np.add.reduceat(values.double().numpy(), split.first, axis=2)
                bound = 1e-12 if dtype == torch.float64 else 1e-5
                assert np.abs(merged - units[name].double().numpy()).max() < bound * max(
                    1.0, float(values.abs().max())
                ), (kind, name)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_edits_in_the_weights_are_the_edits_steered(family: str) -> None:
    model, splits, side = case(family)
    original = copy.deepcopy(model).double()
    rng = np.random.default_rng(1)
    count = sum(split.sub_units for split in splits)
    edits = [Edit(int(index), float(gain), float(offset)) for index, (gain, offset) in zip(
        rng.choice(count, 6, replace=False), rng.standard_normal((6, 2)), strict=True
    )]  # fmt: skip
    twin, x = graft(original, splits), images("random", side).double()
    with twin.steer([edits]):
        steered = twin(x)
    baked = weights_edited(original, splits, edits)(x)
    assert (steered - original(x)).abs().max() > 1e-9  # else nothing is compared
    assert (baked - steered).abs().max() < 1e-11 * max(1.0, float(steered.abs().max()))


def test_every_kind_of_layer_is_among_them() -> None:
    found: set[str] = set()
    for family in FAMILIES:
        model, splits, _ = case(family)
        for split in splits:
            module = model.get_submodule(split.layer)
            bias = "" if module.bias is not None else ", no bias"
            if isinstance(module, nn.Linear):
                found.add(f"linear{bias}")
            elif isinstance(module, nn.Conv2d):
                kind = (
                    "depthwise"
                    if module.groups == module.in_channels > 1
                    else "grouped"
                    if module.groups > 1
                    else "conv"
                )
                size, strided = "x".join(map(str, module.kernel_size)), ", strided" if max(module.stride) > 1 else ""
                found.add(f"{kind} {size}{strided}{bias}")
    expected = {
        "linear",
        "linear, no bias",
        "conv 1x1",
        "conv 1x1, no bias",
        "conv 3x3, no bias",
        "conv 3x3, strided, no bias",
    }
    assert expected | {"depthwise 7x7", "depthwise 3x3, no bias", "depthwise 3x3, strided, no bias"} <= found, sorted(
        found
    )
