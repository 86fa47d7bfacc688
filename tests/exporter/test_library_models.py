"""Models of torchvision and transformers come in by name or folder, with their preprocessing, labels and kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _graphs import random_split
from PIL import Image

from elude.exporter.graph import emit
from elude.exporter.models.layers import find_layers, splittable
from elude.exporter.models.load import LoadedModel, ModelOptions, load_model
from elude.exporter.models.trial import try_out
from elude.exporter.rewrite import graft
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import UsageError

PROCESSOR = {
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def save(module: Any, folder: Path, processor: dict[str, Any] | None = None) -> str:
    module.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | (processor or {})))
    return str(folder)


def folders(root: Path) -> dict[str, tuple[str, ModelOptions]]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(**TINY, id2label={0: "cat", 1: "dog", 2: "eel"}, label2id={"cat": 0, "dog": 1, "eel": 2})
    )
    dino = transformers.Dinov2Model(transformers.Dinov2Config(**TINY))
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**TINY, projection_dim=10))
    resnet = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", problem_type="regression"
        )
    )
    return {
        "vit": (save(vit, root / "vit"), ModelOptions()),
        "dinov2": (save(dino, root / "dinov2"), ModelOptions(output="pooler_output")),
        "dinov2 tokens": (save(dino, root / "dinov2"), ModelOptions(output="last_hidden_state", pool="mean")),
        "clip": (save(clip, root / "clip"), ModelOptions(output="image_embeds")),
        "resnet": (save(resnet, root / "resnet"), ModelOptions()),
    }


EXPECTED = {
    "vit": ("classes", ("cat", "dog", "eel")),
    "dinov2": ("embedding", None),
    "dinov2 tokens": ("embedding", None),
    "clip": ("embedding", None),
    "resnet": ("regression", None),
}


def check_graph(loaded: LoadedModel, path: Path) -> None:
    """The optimised file answers as the module does, and is steered as the torch twin is."""
    size = loaded.preprocess.input_size
    trial = try_out(loaded.module, size, splittable(loaded.module))
    layers = find_layers(loaded.module, "last", trial, headless=loaded.kind == "embedding")
    splits = [random_split(layer, 1) for layer in layers]
    emit(
        loaded.module,
        splits,
        path,
        layers=layers,
        input_size=size,
        source=loaded.source,
        preprocess=loaded.preprocess,
        kind=loaded.kind,
    )
    pixels = np.random.default_rng(0).standard_normal((2, *size)).astype(np.float32)
    edits = [[Edit.scale(1, -3.0), Edit(4, 0.5, 1.0)]]
    twin = graft(loaded.module, splits)
    with torch.no_grad():
        plain = loaded.module(torch.from_numpy(pixels)).numpy()
        with twin.steer(edits):
            steered = twin(torch.from_numpy(pixels)).numpy()
    session = GraphSession(path)
    scale = np.abs(plain).max()
    assert np.abs(session.run(pixels).output - plain).max() < 1e-5 * scale
    assert np.abs(session.run(pixels, edits).output - steered).max() < 5e-5 * np.abs(steered).max()
    assert np.abs(steered - plain).max() > 1e-5 * scale


@pytest.mark.parametrize("name", list(EXPECTED))
def test_folders_of_transformers(name: str, tmp_path: Path) -> None:
    folder, options = folders(tmp_path)[name]
    loaded = load_model(folder, options=options)
    assert (loaded.kind, loaded.labels) == EXPECTED[name]
    assert loaded.preprocess.input_size == (3, 32, 32)
    assert loaded.preprocess.std == (0.2, 0.3, 0.4)
    assert load_model(loaded.source.model).source == loaded.source  # the name says all that is needed to load it again
    check_graph(loaded, tmp_path / "model.onnx")


def test_several_outputs_of_transformers_are_listed(tmp_path: Path) -> None:
    folder, _ = folders(tmp_path)["dinov2"]
    with pytest.raises(UsageError, match=r"last_hidden_state \(N, 17, 24\), pooler_output \(N, 24\)"):
        load_model(folder)
    (tmp_path / "dinov2" / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"no preprocessor_config\.json"):
        load_model(folder)
    with pytest.raises(UsageError, match="'NoSuchModel'"):
        load_model(f"{folder}?part=NoSuchModel")


@pytest.mark.parametrize(
    "processor",
    [
        {"size": {"height": 20, "width": 28}, "resample": 3},
        {
            "size": {"shortest_edge": 37},
            "crop_size": {"height": 32, "width": 32},
            "do_center_crop": True,
            "resample": 3,
        },
    ],
)
def test_preprocessing_equals_that_of_transformers(processor: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from elude.exporter.models.transformers_models import preprocess_of

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | processor))
    own = preprocess_of(tmp_path)
    crops = "crop_size" in processor
    kind = transformers.CLIPImageProcessorPil if crops else transformers.ViTImageProcessorPil
    theirs = kind(**{**PROCESSOR, **processor})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    expected = np.asarray(theirs(image, return_tensors="np")["pixel_values"][0])
    np.testing.assert_allclose(own.normalise(own.pixels(image)), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_models_of_torchvision(name: str, tmp_path: Path) -> None:
    loaded = load_model(f"random:torchvision:{name}")
    assert loaded.preprocess.input_size == (3, 224, 224)
    assert loaded.labels is not None
    assert loaded.labels[:2] == ("tench", "goldfish")
    with torch.no_grad():  # torchvision starts the head of its transformers at zero, which would hide every change
        for parameter in loaded.module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    check_graph(loaded, tmp_path / "model.onnx")


def test_weights_of_torchvision_from_a_file(tmp_path: Path) -> None:
    from torchvision import models

    module = models.get_model("mobilenet_v3_small", weights=None, num_classes=4).eval()
    torch.save(module.state_dict(), tmp_path / "mine.pth")
    name = f"torchvision:mobilenet_v3_small?weights={tmp_path / 'mine.pth'}"
    loaded = load_model(name, options=ModelOptions(labels=list("abcd")))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), module(x))
    assert loaded.labels == tuple("abcd")
    with pytest.raises(UsageError, match=r"no classifier 'resnet19'.*resnet18"):
        load_model("torchvision:resnet19")
    with pytest.raises(UsageError, match=r"no weights 'V9'.*IMAGENET1K_V1"):
        load_model("torchvision:resnet18.V9")
    with pytest.raises(UsageError, match="does not hold weights"):
        load_model(name.replace("mobilenet_v3_small", "resnet18"))


def test_the_geometry_of_torchvision_is_kept() -> None:
    from torchvision import models

    from elude.exporter.models.torchvision_models import preprocess_of

    transforms = models.ResNet50_Weights.IMAGENET1K_V2.transforms()  # resized to 232
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    own = preprocess_of(transforms)
    np.testing.assert_allclose(own.normalise(own.pixels(image)), transforms(image).numpy(), atol=1e-6)
