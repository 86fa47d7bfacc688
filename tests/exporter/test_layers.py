"""Layers are found by path and pattern; what cannot be split is refused with the reason."""

from __future__ import annotations

import pytest
import torch
from _models import Convolutions, TinyBlocks
from torch import nn

from elude.exporter.models.layers import find_layers, splittable
from elude.exporter.models.tokens import to_tokens
from elude.exporter.models.trial import try_out
from elude.handlers.errors import UnsupportedLayerError, UsageError


def names(model: nn.Module, pattern: str) -> list[str]:
    return [layer.name for layer in find_layers(model, pattern)]


def test_patterns() -> None:
    model = TinyBlocks()
    assert names(model, "blocks.1.mlp.fc2") == ["blocks.1.mlp.fc2"]
    assert names(model, "last") == names(model, "default") == ["blocks.1.mlp.fc2"]
    assert names(model, "blocks.*.fc2") == ["blocks.0.mlp.fc2", "blocks.1.mlp.fc2"]
    assert names(model, "blocks.0.mlp.*") == ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]  # passes over the activation
    assert names(model, "head, blocks.?.mlp.fc1,head") == [
        "blocks.0.mlp.fc1",
        "blocks.1.mlp.fc1",
        "head",
    ]  # in the model's order, once


def test_the_last_block_is_not_the_pooling_head() -> None:
    model = TinyBlocks()
    model.attn_pool = nn.ModuleDict({"mlp": nn.ModuleDict({"fc2": nn.Linear(6, 6)})})  # as in SigLIP's image tower
    assert names(model, "last") == ["blocks.1.mlp.fc2"]


class OutOfOrder(nn.Module):
    """Defined in another order than it runs; a fully convolutional head behind the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.second, self.first = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x))).mean((2, 3))


class Chain(nn.Sequential):
    def __init__(self, *, head: bool = True) -> None:
        parts = [nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 6)]
        super().__init__(*parts, *([nn.ReLU(), nn.Linear(6, 2)] if head else []))


@pytest.mark.parametrize(
    ("model", "size", "headless", "expected"),
    [
        (Convolutions(), (3, 12, 12), False, "grouped"),  # the depthwise one after it has one input per unit
        (OutOfOrder(), (3, 8, 8), False, "second"),
        (OutOfOrder(), (3, 8, 8), True, "head"),  # its output is the embedding
        (Chain(), (3, 2, 2), False, "3"),
        (Chain(head=False), (3, 2, 2), True, "3"),
    ],
)
def test_the_default_is_the_last_layer_that_runs_before_the_head(
    model: nn.Module, size: tuple[int, int, int], headless: bool, expected: str
) -> None:
    trial = try_out(model.eval(), size, splittable(model))
    (layer,) = find_layers(model, "last", trial, headless=headless)
    assert layer.name == expected


def test_a_model_that_does_not_run_on_its_input_size_is_refused() -> None:
    model = Chain()
    with pytest.raises(UnsupportedLayerError, match=r"cannot be run on images of 3×5×5"):
        try_out(model, (3, 5, 5), splittable(model))


def test_shapes_of_each_kind() -> None:
    found = {layer.name: layer for layer in find_layers(Convolutions(), "*")}
    shapes = {
        name: (layer.kind, layer.units, layer.inputs, layer.groups, layer.window) for name, layer in found.items()
    }
    assert shapes == {
        "stem": ("conv", 8, 3, 1, 9),
        "pointwise": ("conv", 12, 8, 1, 1),
        "grouped": ("conv", 6, 4, 3, 9),
        "depthwise": ("conv", 6, 1, 6, 6),
        "head": ("linear", 5, 6, 1, 1),
    }


def test_no_match_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"No layer matches 'blocks\.1\.mlp\.fc3'.*blocks\.1\.mlp\.fc2"):
        find_layers(TinyBlocks(), "blocks.1.mlp.fc3")
    with pytest.raises(UsageError, match=r"No layer matches 'nope'.*head"):
        find_layers(TinyBlocks(), "head,nope")
    with pytest.raises(UsageError, match=r"no block with an 'mlp\.fc2'.*depthwise"):
        find_layers(Convolutions(), "last")
    with pytest.raises(UsageError, match=r"no layer that can be split"):
        find_layers(nn.Sequential(nn.ReLU()), "x")


class Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight / self.weight.std(), self.bias)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.LayerNorm(3), "it is a LayerNorm"),
        (nn.Conv1d(3, 3, 1), "it is a Conv1d"),
        (nn.ConvTranspose2d(3, 3, 1), "it is a ConvTranspose2d"),
        (Standardised(3, 3, 1), "Standardised may change its weights"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), "its weights are computed from other parameters"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_reason(module: nn.Module, reason: str) -> None:
    model = nn.ModuleDict({"bad": module, "good": nn.Linear(3, 3)})
    with pytest.raises(UnsupportedLayerError, match=rf"'bad' cannot be split: {reason}.*good"):
        find_layers(model, "bad")


def test_a_wildcard_does_not_pass_over_a_layer_that_looks_splittable() -> None:
    model = nn.ModuleDict({"bad": Standardised(3, 3, 1), "good": nn.Linear(3, 3), "norm": nn.LayerNorm(3)})
    with pytest.raises(UnsupportedLayerError, match="'bad' cannot be split"):
        find_layers(model, "*")


def test_paths_that_cannot_be_identifiers_are_refused() -> None:
    model = nn.ModuleDict({"a-b": nn.Linear(3, 3)})
    with pytest.raises(UnsupportedLayerError, match="could not be named"):
        find_layers(model, "a-b")


def test_tokens_of_every_layout() -> None:
    linear, conv = (find_layers(Convolutions(), name)[0] for name in ("head", "stem"))
    z = torch.arange(2 * 6 * 5).float()
    assert torch.equal(to_tokens(z.view(12, 5), linear), z.view(12, 1, 5))
    assert torch.equal(to_tokens(z.view(2, 6, 5), linear), z.view(2, 6, 5))
    assert torch.equal(to_tokens(z.view(2, 2, 3, 5), linear), z.view(2, 6, 5))
    assert torch.equal(to_tokens(z.view(4, 3, 5), linear, 2), z.view(2, 6, 5))  # two windows of each of two images
    feature_map = torch.randn(2, 8, 3, 4)
    tokens = to_tokens(feature_map, conv)
    assert tokens.shape == (2, 12, 8)
    assert torch.equal(tokens[1, 1 * 4 + 2], feature_map[1, :, 1, 2])  # row by row
    with pytest.raises(ValueError, match="not whole parts"):
        to_tokens(z.view(4, 3, 5), linear, 3)
    with pytest.raises(ValueError, match="not that of a conv"):
        to_tokens(z.view(2, 6, 5), conv)
