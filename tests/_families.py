"""Small models of every family of image models; imported by tests as ``from _families import ...``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - before timm

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}
NARROW = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)}

# name: timm model, its options to make it small, layers to split, side of the image
FAMILIES: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "vit": (
        "vit_tiny_patch16_224",
        TINY,
        "patch_embed.proj,blocks.0.attn.qkv,blocks.1.attn.proj,blocks.1.mlp.fc2,head",
        32,
    ),
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
    "mobilenetv3": (
        "mobilenetv3_small_050",
        {},
        "blocks.0.0.conv_dw,blocks.3.0.conv_pwl,blocks.1.0.conv_pw,conv_head,classifier",
        64,
    ),
    "efficientnet": (
        "efficientnet_b0",
        {},
        "blocks.1.0.conv_dw,blocks.5.0.conv_pwl,blocks.4.0.se.conv_reduce",
        64,
    ),
    "efficientnet_same": ("tf_efficientnet_b0", {}, "blocks.3.0.conv_pw,blocks.5.0.conv_pwl", 64),
}


def small(name: str, options: dict[str, Any]) -> nn.Module:
    """With parameters and statistics away from their initial 0 or 1 (gammas, layer scales), so that no fault hides
    behind them.
    """
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
