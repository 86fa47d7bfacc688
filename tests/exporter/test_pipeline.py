"""The whole export on a tiny model: a bundle that opens, the same bytes twice, and nothing left behind when a check
fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from _images import noise, plain
from _models import Convolutions
from safetensors.torch import save_file

from elude.exporter.atlas.held_out import HELD_OUT, HeldOut
from elude.exporter.export import torch_job
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.pipeline import export
from elude.exporter.images import open_images
from elude.exporter.models.load import load_model
from elude.exporter.splitting.split_file import load_splits
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import EquivalenceError, UnsupportedLayerError, UsageError

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
LAYERS = "blocks.*.mlp.fc2"
SETTINGS = ExportSettings(tokens_per_image=9, top_k=150, min_cluster_size=5, tops=3, measure_top=10, batch_size=16)
FILES = {
    "README.md",
    "catalogue.sqlite",
    "control.safetensors",
    "disentangled.safetensors",
    "equivalence.json",
    "labels.json",
    "measures.json",
    "names.json",
    "model.onnx",
    "preprocess.json",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ViT of random but strong weights, in timm's local layout."""
    import timm

    path = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = timm.create_model("vit_tiny_patch16_224", **SMALL)
        state = {name: tensor + 0.2 * torch.randn_like(tensor) for name, tensor in module.state_dict().items()}
    cfg = {
        "input_size": [3, 16, 16],
        "crop_pct": 1.0,
        "num_classes": 3,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": SMALL,
        "label_names": ["x", "y", "z"],
        "pretrained_cfg": cfg,
    }
    (path / "config.json").write_text(json.dumps(config))
    save_file(state, path / "model.safetensors")
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    noise(root, 60, 16)
    return root


@pytest.fixture(scope="module")
def bundle(model: str, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(model, images, LAYERS, tmp_path_factory.mktemp("out") / "bundle", SETTINGS)


def test_the_bundle_is_whole(bundle: Bundle, model: str) -> None:
    assert set(bundle.manifest.files) == FILES
    manifest = bundle.manifest
    assert manifest.source == load_model(model).source
    assert [layer.name for layer in manifest.layers] == ["blocks.0.mlp.fc2", "blocks.1.mlp.fc2"]
    assert [layer.first for layer in manifest.layers] == [0, manifest.layers[0].sub_units]
    assert manifest.parameters == sum(parameter.numel() for parameter in load_model(model).module.parameters())
    assert {"python", "torch", "timm", "numpy"} <= set(manifest.versions)
    assert bundle.json("labels.json") == ["x", "y", "z"]
    assert any(parts > 1 for layer in manifest.layers for parts in layer.parts)  # else the rest shows nothing
    splits = load_splits(bundle.path("disentangled.safetensors"))
    assert [tuple(split.parts) for split in splits] == [layer.parts for layer in manifest.layers]
    assert Catalogue(bundle.path("catalogue.sqlite")).count() == sum(layer.sub_units for layer in manifest.layers)


def test_with_images_held_out_the_concepts_are_shown_on_those(model: str, images: Path, tmp_path: Path) -> None:
    noise(tmp_path / "new", 40, 16, seed=1)
    made = export(model, images, LAYERS, tmp_path / "bundle", SETTINGS, evaluation=tmp_path / "new")
    assert set(made.manifest.files) == FILES | {HELD_OUT}
    catalogue = Catalogue(made.path("catalogue.sqlite"))
    held_out = HeldOut.from_json(made.json(HELD_OUT), len(catalogue.concepts()))
    source = open_images(tmp_path / "new")
    names = [entry.name for entry in source.entries]
    assert held_out.images == len(source) == 40
    pixels = next(source.batches(load_model(model).preprocess, 40))[1]
    result = GraphSession(made.path("model.onnx")).run(pixels, inspect=True).sub_units
    peak = np.concatenate([result[layer.name].max(axis=1) for layer in made.manifest.layers], axis=1)
    best = peak / peak.max(axis=0)
    for number in (*held_out.clearest, *held_out.random):
        members = list(catalogue.concepts()[number].members)
        first = held_out.tops[number][0]
        strength = np.maximum(best[:, members], 0).mean(axis=1)
        assert first.activation == pytest.approx(strength.max(), abs=1e-4)
        assert strength[names.index(held_out.pictures[first.image].name)] == pytest.approx(strength.max(), abs=1e-4)


def test_the_graph_predicts_what_the_original_does(bundle: Bundle, model: str, images: Path) -> None:
    loaded = load_model(model)
    _, x = next(open_images(images).batches(loaded.preprocess, 8))
    session = onnxruntime.InferenceSession(bundle.path("model.onnx"), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"pixel_values": x})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(logits, loaded.module(torch.from_numpy(x)).numpy(), atol=1e-4)


def test_measures_and_card_say_what_was_done(bundle: Bundle) -> None:
    measures = bundle.json("measures.json")
    assert measures["images"] == 60
    assert measures["held_out"] is False
    assert measures["tokens"] == {"blocks.0.mlp.fc2": 17, "blocks.1.mlp.fc2": 17}
    assert measures["settings"]["probing_images"] == 60
    assert measures["settings"]["top_k"] == 150
    assert set(measures["layers"]["blocks.1.mlp.fc2"]) == {"units", "sub_units", "random", "random_pairs"}
    card = bundle.path("README.md").read_text()
    assert bundle.manifest.source.weights_sha256 in card
    assert "the probing images themselves" in card
    assert "| `blocks.1.mlp.fc2` | sub-units |" in card


def test_two_runs_give_the_same_bytes(bundle: Bundle, model: str, images: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    again = export(
        model, images, LAYERS, tmp_path / "again", SETTINGS, progress=lambda step, done, total: steps.append(step)
    )
    assert again.manifest == bundle.manifest
    assert list(dict.fromkeys(steps)) == [
        "check",
        "images",
        "probe",
        "split blocks.0.mlp.fc2",
        "split blocks.1.mlp.fc2",
        "graph",
        "verify",
        "measure",
        "atlas",
    ]


@pytest.mark.slow
def test_a_ray_cluster_of_two_gives_the_same_bundle(
    bundle: Bundle, model: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    try:
        again = export(model, images, LAYERS, tmp_path / "bundle", SETTINGS, engine="ray", workers=2)
        assert ray.cluster_resources()["CPU"] == 2
    finally:
        ray.shutdown()
    assert again.manifest == bundle.manifest


KILLED = """
import os, signal, sys
from elude.exporter.atlas.held_out import HELD_OUT, HeldOut
from elude.exporter.export import torch_job
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.pipeline import export

def die(step, done, total):
    if step == "split blocks.0.mlp.fc2" and done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

settings = ExportSettings(tokens_per_image=9, top_k=150, min_cluster_size=5, tops=3, measure_top=10, batch_size=16)
export(sys.argv[1], sys.argv[2], "blocks.*.mlp.fc2", sys.argv[3], settings, progress=die)
"""


@pytest.mark.slow
def test_a_killed_export_goes_on_and_gives_the_same_bytes(
    bundle: Bundle, model: str, images: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    out = tmp_path / "bundle"
    killed = subprocess.run([sys.executable, "-c", KILLED, model, str(images), str(out)], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.partial"]
    steps: list[tuple[str, int]] = []
    again = export(model, images, LAYERS, out, SETTINGS, progress=lambda step, done, total: steps.append((step, done)))
    assert [done for step, done in steps if step == "probe"] == [60]  # nothing was collected twice
    assert again.manifest == bundle.manifest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_check_leaves_no_bundle_and_loses_nothing_that_was_collected(
    model: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch_job.verify

    def broken(original: torch.nn.Module, *rest: object, **keywords: object) -> object:
        with torch.no_grad():
            original.head.bias += 0.01
        return real(original, *rest, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(torch_job, "verify", broken)
        with pytest.raises(EquivalenceError, match=r"bundle\.partial.*resumes"):
            export(model, images, "last", tmp_path / "bundle", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.partial"]
    assert json.loads((tmp_path / "bundle.partial" / "equivalence.json").read_text())["passed"] is False
    steps: list[tuple[str, int]] = []
    export(
        model,
        images,
        "last",
        tmp_path / "bundle",
        SETTINGS,
        progress=lambda step, done, total: steps.append((step, done)),
    )
    assert [done for step, done in steps if step == "probe"] == [60]  # nothing was collected twice
    assert not [step for step, _ in steps if step.startswith("split")]  # nor clustered
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_cannot_be_used_is_refused_before_any_work(model: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        export(model, tmp_path / "nowhere", "last", tmp_path / "bundle")
    with pytest.raises(UsageError, match=r"No layer matches 'blocks\.9\.mlp\.fc2'"):
        export(model, images, "blocks.9.mlp.fc2", tmp_path / "bundle")
    with pytest.raises(UnsupportedLayerError, match="LayerNorm"):
        export(model, images, "norm", tmp_path / "bundle")
    with pytest.raises(UsageError, match="No images are given"):
        export(model, None, "last", tmp_path / "bundle")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="taken already exists"):
        export(model, images, "last", tmp_path / "taken")
    with pytest.raises(
        UsageError, match=r"give 60 activation instances of blocks\.1\.mlp\.fc2; at least 100 are needed"
    ):
        export(model, images, "last", tmp_path / "bundle", ExportSettings(tokens_per_image=1))
    with pytest.raises(UsageError, match="batch_size is 0"):
        ExportSettings(batch_size=0)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("instances", "top_k", "smallest"),
    [(100, 100, 5), (1200, 100, 5), (12_000, 1000, 5), (24_000, 2000, 8), (10**6, 2000, 8)],
)
def test_default_sizes_follow_the_instances(instances: int, top_k: int, smallest: int) -> None:
    chosen = ExportSettings().for_instances(instances)
    assert (chosen.top_k, chosen.min_cluster_size) == (top_k, smallest)
    paper = ExportSettings(method="paper").for_instances(instances)
    assert (paper.top_k, paper.min_cluster_size) == (top_k, max(round(top_k / 100), 5))


def test_a_method_names_rule_and_clusterer() -> None:
    assert ExportSettings(method="paper").resolved() == {"margin_rule": "literal", "clusterer": "hdbscan"}
    assert ExportSettings(method="paper", margin_rule="signed").resolved() == {
        "margin_rule": "signed",
        "clusterer": "hdbscan",
    }
    chosen = ExportSettings().for_instances(5000)
    assert (chosen.margin_rule, chosen.clusterer) == ("near-ties", "pictures")
    with pytest.raises(UsageError, match="does not go with"):
        ExportSettings(margin_rule="literal").for_instances(5000)
    with pytest.raises(UsageError, match=r"no method 'mine'.*default, paper"):
        ExportSettings(method="mine")


def test_given_sizes_are_kept() -> None:
    chosen = ExportSettings(top_k=700, min_cluster_size=9).for_instances(5000)
    assert (chosen.top_k, chosen.min_cluster_size) == (700, 9)
    assert ExportSettings(top_k=700).for_instances(300).top_k == 300


def test_a_depthwise_layer_stays_whole_and_a_note_says_so(tmp_path: Path) -> None:
    noise(tmp_path / "images", 40, 12)
    notes: list[str] = []
    bundle = export(
        Convolutions(),
        tmp_path / "images",
        "depthwise",
        tmp_path / "bundle",
        SETTINGS,
        preprocess=plain(12),
        labels=list("abcde"),
        notify=notes.append,
    )
    assert {part for layer in bundle.manifest.layers for part in layer.parts} == {1}
    assert any("depthwise" in note and "whole" in note for note in notes)
