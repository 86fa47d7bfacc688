"""Every family of image models: bit-identical to the plain export when not optimised, and equal to torch when steered or inspected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _graphs import emitted, plain_session
from torch import nn

import exporter.torchvision_compat  # noqa: F401 - before timm
from exporter.rewrite import graft
from handlers.session import GraphSession

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}
NARROW = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)}

# name: timm model, its options to make it small, layers to split, side of the image
FAMILIES: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "vit": ("vit_tiny_patch16_224", TINY, "patch_embed.proj,blocks.0.attn.qkv,blocks.1.attn.proj,blocks.1.mlp.fc2,head", 32),
    "deit3": ("deit3_small_patch16_224", TINY, "blocks.0.mlp.fc1,blocks.1.mlp.fc2", 32),
    "dinov2": ("vit_small_patch14_dinov2", TINY, "blocks.1.attn.qkv,blocks.1.mlp.fc2", 32),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", TINY, "blocks.1.mlp.fc2", 32),
    "dinov2_swiglu": ("vit_giant_patch14_reg4_dinov2", TINY, "blocks.0.mlp.fc1,blocks.1.mlp.fc2", 32),
    "clip": ("vit_base_patch32_clip_224", {**TINY, "num_classes": 7}, "blocks.1.mlp.fc2,head", 32),
    "clip_headless": ("vit_base_patch32_clip_224", {**TINY, "num_classes": 0}, "blocks.1.mlp.fc2", 32),
    "siglip": ("vit_base_patch16_siglip_224", TINY, "blocks.1.mlp.fc2,attn_pool.mlp.fc2", 32),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 12, "depths": (2, 2), "num_heads": (2, 3), "img_size": 56, "window_size": 7},
        "layers.0.blocks.1.attn.qkv,layers.1.blocks.1.mlp.fc2,head.fc",
        56,
    ),
    "convnext": ("convnext_atto", NARROW, "stages.0.blocks.0.conv_dw,stages.2.blocks.1.mlp.fc2,head.fc", 64),
    "convnextv2": ("convnextv2_atto", NARROW, "stages.2.blocks.1.mlp.fc2,stages.3.blocks.0.mlp.fc1", 64),
    "resnet": (
        "resnet18",
        {"channels": (8, 8, 16, 16), "stem_width": 8},
        "conv1,layer1.0.conv2,layer3.0.downsample.0,layer4.1.conv2,fc",
        64,
    ),
    "mobilenetv3": ("mobilenetv3_small_050", {}, "blocks.0.0.conv_dw,blocks.3.0.conv_pwl,blocks.1.0.conv_pw,conv_head,classifier", 64),
    "efficientnet": (
        "efficientnet_b0",
        {},
        "blocks.1.0.conv_dw,blocks.5.0.conv_pwl,blocks.4.0.se.conv_reduce",
        64,
    ),
    "efficientnet_same": ("tf_efficientnet_b0", {}, "blocks.3.0.conv_pw,blocks.5.0.conv_pwl", 64),
}
QUICK = {"dinov2_registers", "resnet", "mobilenetv3", "convnextv2"}


def small(name: str, options: dict[str, Any]) -> nn.Module:
    """With parameters and statistics away from their initial 0 or 1 (gammas, layer scales), so that no fault hides behind them."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, **({"num_classes": 5} | options)).eval()
    with torch.no_grad():
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            if key.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.ndim <= 1 or "gamma" in key:
                value.uniform_(0.3, 1.2).mul_(torch.where(torch.rand_like(value) < 0.5, -1.0, 1.0))
    return model


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)  # four of unlike kinds are quick enough for every run
def test_a_family(family: str, tmp_path: Path, record_property: Any) -> None:
    name, options, pattern, side = FAMILIES[family]
    model, size = small(name, options), (3, side, side)
    case = emitted(model, pattern, size, tmp_path / "model.onnx", batch=3)
    outputs = {}
    for optimise in (False, True):
        plain = plain_session(model, size, tmp_path / "plain.onnx", optimise=optimise)
        for batch in (1, 3):
            pixels = case.pixels[:batch]
            expected = plain.run(None, {"pixel_values": pixels})[0]
            got = GraphSession(case.path, optimise=optimise).run(pixels).output
            assert np.isfinite(got).all()
            if optimise:
                gap = float(np.abs(got - expected).max() / np.abs(expected).max())
                outputs[batch] = gap
                assert gap < 2e-5
            else:
                assert got.tobytes() == expected.tobytes()
    record_property("optimised: largest difference, relative to the largest output", max(outputs.values()))
    print(f"FAMILY {family}: DISABLE_ALL bit-identical; ENABLE_ALL {max(outputs.values()):.2g}")
    session, twin = GraphSession(case.path), graft(model, case.splits)
    edits = case.edits(1, 3, 6)  # on all tokens: with these weights tokens tie within rounding
    with torch.no_grad():
        sub_units = twin.sub_units(torch.from_numpy(case.pixels))
        with twin.steer(edits):
            steered = twin(torch.from_numpy(case.pixels)).numpy()
    result = session.run(case.pixels, inspect=True)
    for split in case.splits:
        expected, got, units = sub_units[split.layer].numpy(), result.sub_units[split.layer], result.units[split.layer]
        scale = np.abs(expected).max()
        assert np.abs(got - expected).max() < 2e-5 * scale
        merged = np.add.reduceat(got.astype(np.float64), split.first, axis=2)
        assert np.abs(merged - units).max() < 1e-5 * max(scale, np.abs(units).max())
    got = session.run(case.pixels, edits).output
    assert np.abs(got - result.output).max() > 1e-4 * np.abs(steered).max()
    assert np.abs(got - steered).max() < 5e-5 * np.abs(steered).max()
