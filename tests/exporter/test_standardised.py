"""Convolutions that standardise their weights become plain ones with the same outputs, and can be split."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - before timm
from elude.exporter.models.layers import find_layers, why_not
from elude.exporter.models.load import load_model
from elude.exporter.models.standardised import as_plain


@pytest.mark.parametrize("name", ["StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"])
@pytest.mark.parametrize(("stride", "groups", "bias"), [(1, 1, True), (2, 2, False)])
def test_outputs_are_the_same_bits(name: str, stride: int, groups: int, bias: bool) -> None:
    from timm.layers import std_conv

    torch.manual_seed(0)
    conv = getattr(std_conv, name)(4, 6, 3, stride=stride, groups=groups, bias=bias)
    if hasattr(conv, "gain"):
        nn.init.uniform_(conv.gain, 0.5, 2.0)
    model = nn.Sequential(conv, nn.ReLU()).eval()
    x = torch.randn(2, 4, 13, 13)
    plain = as_plain(copy.deepcopy(model))
    assert torch.equal(plain(x), model(x))
    assert why_not("0", model[0])
    assert not why_not("0", plain[0])
    assert [layer.name for layer in find_layers(plain, "0")] == ["0"]


def test_a_model_keeps_the_hash_of_its_trained_weights() -> None:
    import timm

    from elude.exporter.models.loaded import weights_sha256

    loaded = load_model("random:test_nfnet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        original = timm.create_model("test_nfnet").eval()
    assert loaded.source.weights_sha256 == weights_sha256(original)
    x = torch.randn(1, *loaded.preprocess.input_size)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), original(x))
