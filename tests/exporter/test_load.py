"""Models come as they are, with preprocessing, labels and a hash of their weights; what cannot be downloaded is said
with a
way out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from _models import TwoConcepts
from safetensors.torch import save_file

from elude.exporter.models import timm_models
from elude.exporter.models.load import load_model, weights_sha256
from elude.handlers.bundle.bundle import Source
from elude.handlers.errors import UsageError

SMALL = {"img_size": 28, "patch_size": 14, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in timm's local layout, with known weights."""
    import timm

    model = timm.create_model("vit_tiny_patch16_224", **SMALL)
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 3,
        "model_args": SMALL,
        "label_names": ["cat", "dog", "eel"],
        "pretrained_cfg": {
            "tag": "test_tag",
            "input_size": [3, 28, 28],
            "interpolation": "bilinear",
            "crop_pct": 0.9,
            "crop_mode": "squash",
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "num_classes": 3,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), path / "model.safetensors")
    return path


def test_a_local_folder_is_loaded_as_it_is(folder: Path) -> None:
    from safetensors.torch import load_file

    loaded = load_model(str(folder))
    state = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.module.state_dict().items())
    assert not loaded.module.training
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    preprocess = loaded.preprocess
    assert preprocess.input_size == (3, 28, 28)
    assert (preprocess.interpolation, preprocess.crop_pct, preprocess.crop_mode) == ("bilinear", 0.9, "squash")
    assert (preprocess.mean, preprocess.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert loaded.labels == ("cat", "dog", "eel")
    assert loaded.source == Source(str(folder), "test_tag", "vit_tiny_patch16_224", weights_sha256(loaded.module))
    assert load_model(f"local-dir:{folder}").source.weights_sha256 == loaded.source.weights_sha256


def test_the_embedded_model_predicts_the_classes_it_names() -> None:
    loaded = load_model("embedded")
    assert loaded.labels is not None
    assert loaded.labels[0] == "t-shirt"
    assert loaded.preprocess.input_size == (3, 28, 28)
    assert loaded.module(torch.zeros(2, 3, 28, 28)).shape == (2, len(loaded.labels))


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = load_model("resnet10t", pretrained=False), load_model("random:resnet10t")
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.source == second.source
    assert first.source.model == "random:resnet10t"
    assert first.labels is not None
    assert len(first.labels) == 1000
    assert "goldfish" in first.labels[1]


def test_the_hash_is_over_names_types_shapes_and_bytes() -> None:
    model = TwoConcepts()
    expected = hashlib.sha256()
    for name, tensor in [("mix.bias", model.mix.bias), ("mix.weight", model.mix.weight)]:
        expected.update(f"{name} torch.float32 {tuple(tensor.shape)}\n".encode() + tensor.detach().numpy().tobytes())
    assert weights_sha256(model) == expected.hexdigest()
    with torch.no_grad():
        model.mix.weight[0, 2] = torch.finfo(torch.float32).tiny  # one bit is enough
    assert weights_sha256(model) != expected.hexdigest()


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match=r"no model 'vit_tinny_patch16_224'.*vit_tiny_patch16_224"):
        load_model("vit_tinny_patch16_224")
    with pytest.raises(UsageError, match=r"Weights of this architecture: resnet10t\.c3_in1k"):
        load_model("resnet10t.nonsense")
    with pytest.raises(UsageError, match=r"no such folder.*hf-hub:owner/name"):
        load_model("owner/name")


def test_a_folder_without_or_with_wrong_files_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "away")
    with pytest.raises(UsageError, match=r"model' cannot be"):
        load_model(str(folder))
    save_file({"head.weight": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"weights belong to it"):
        load_model(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"cannot be built"):
        load_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(UsageError, match=r"must hold config\.json and model\.safetensors"):
        load_model(f"local-dir:{folder}")


def test_without_a_hub_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    for error in (
        LocalEntryNotFoundError("cannot reach the hub"),
        OfflineModeIsEnabled("offline mode"),
        ConnectionError("no route"),
    ):

        def fail(*_args: object, _error: Exception = error, **_kwargs: object) -> None:
            raise _error

        monkeypatch.setattr(timm_models.timm, "create_model", fail)
        with pytest.raises(
            UsageError, match=r"cannot be fetched from the model hub: .*give its folder.*random:hf-hub:owner/name"
        ):
            load_model("hf-hub:owner/name")


def test_a_model_of_grey_images_says_so(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["in_chans"] = 1
    config["pretrained_cfg"] |= {"input_size": [1, 28, 28], "mean": [0.5], "std": [0.25]}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_model(str(folder), pretrained=False)
    assert loaded.preprocess.input_size == (1, 28, 28)
    assert (loaded.preprocess.mean, loaded.preprocess.std) == ((0.5,), (0.25,))


def test_labels_come_in_every_form_of_timm(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())

    def labelled(names: object, **more: object) -> tuple[str, ...] | None:
        (folder / "config.json").write_text(json.dumps(config | {"label_names": names} | more))
        return load_model(str(folder)).labels

    assert labelled({"0": "cat", "2": "eel"}) == ("cat", "1", "eel")
    assert labelled(["n1", "n2", "n3"], label_descriptions={"n1": "cat", "n3": "eel"}) == ("cat", "n2", "eel")
    with pytest.raises(UsageError, match=r"2 labels for 3 outputs.*label_names"):
        labelled(["cat", "dog"])
    with pytest.raises(UsageError, match=r"label for output 3.*3 outputs"):
        labelled({"3": "cat"})


@pytest.mark.parametrize(
    ("outputs", "first"), [(1000, "tench"), (11821, "benthos"), (21841, "organism"), (21843, "organism")]
)
def test_every_imagenet_has_its_labels(outputs: int, first: str) -> None:
    labels = timm_models.stated(
        "resnet10t.a_in21k",
        {"tag": "a_in1k" if outputs == 1000 else "a_in21k"},
        timm_models.timm.create_model("resnet10t", num_classes=outputs),
    ).labels
    assert isinstance(labels, tuple)
    assert len(labels) == outputs
    assert first in labels[0]


def test_the_projection_of_an_image_text_tower_is_an_embedding() -> None:
    name = "vit_base_patch32_clip_224.openai"
    cfg = timm_models.timm.get_pretrained_cfg(name).to_dict()

    class Tower(torch.nn.Module):
        num_classes, pretrained_cfg = 512, cfg

    assert timm_models.stated(name, cfg, Tower()).kind == "embedding"
    assert timm_models.stated("my/folder", {"num_classes": 512}, Tower()).kind == "classes"
