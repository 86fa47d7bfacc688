"""``elude measure``: what it adds to a bundle, against independent computations; matching by all permutations;
another network's space.
"""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from _images import noise
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file
from typer.testing import CliRunner

from elude.cli import app
from elude.exporter.atlas.held_out import HELD_OUT
from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.measure_bundle import MeasureSettings, facts, measure_bundle
from elude.exporter.export.pipeline import export
from elude.exporter.images import ImageSource, open_images
from elude.exporter.models.load import load_model
from elude.exporter.scoring.activity import Activity
from elude.exporter.scoring.external_encoder import embed
from elude.exporter.scoring.ms_score import external_scores, ms_score
from elude.exporter.splitting.layer_split import LayerSplit, full_masks, whole
from elude.exporter.splitting.stability import stability
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import EvaluationError, UsageError


def unit_length(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def split(*representatives: NDArray[np.float32]) -> LayerSplit:
    parts = np.array([len(rows) for rows in representatives])
    masks = np.repeat(full_masks(parts)[:, None], representatives[0].shape[1], axis=1)
    return LayerSplit("x", parts, masks, np.full(len(parts), 0.5, np.float32), np.concatenate(representatives))


@given(st.integers(2, 4), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_matching_is_the_best_of_all_assignments(first: int, second: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = unit_length(rng.standard_normal((first, 6))), unit_length(rng.standard_normal((second, 6)))
    small, large = sorted((one, other), key=len)
    best = max(
        sum(float(row @ large[p]) for row, p in zip(small, order, strict=False))
        for order in permutations(range(len(large)))
    )
    found = stability([split(one), split(other)])
    assert found.cosine * len(small) == pytest.approx(best, abs=1e-5)
    assert found.cosine_of_all * len(large) == pytest.approx(best, abs=1e-5)
    assert found.same_count == (first == second)


def test_renamed_sub_units_are_the_same_and_whole_units_are_counted() -> None:
    rows = np.eye(4, dtype=np.float32)
    same = stability([split(rows[:3], rows[:2]), split(rows[[2, 0, 1]], rows[[1, 0]])])
    assert (same.cosine, same.units, same.same_count, same.split_once) == (1, 2, 1, 0)
    other = stability([split(rows[:2]), split(rows[2:])])
    assert other.cosine == 0
    some = stability([split(rows[:2], rows[:1]), split(rows[:2], rows[:2]), split(rows[:1], rows[:1])])
    assert (some.units, some.split_once) == (1, 4)
    nothing = stability([whole("x", 2, 4), whole("x", 2, 4)]).to_json()
    assert nothing == {"cosine": None, "cosine_of_all": None, "units": 0, "same_count": None, "split_once": 0}


def test_scores_in_another_space_follow_the_definition() -> None:
    rng = np.random.default_rng(0)
    peak = rng.standard_normal((12, 3)).astype(np.float32)
    embeddings = rng.standard_normal((12, 5))
    activity = Activity(peak, np.zeros((12, 3), np.int32), np.ones(3), np.zeros(3), 1)
    found = external_scores(activity, embeddings, 4)
    for feature in range(3):
        order = np.argsort(-peak[:, feature])[:4]
        weights = (peak[:, feature] - peak[:, feature].min()) / np.ptp(peak[:, feature])
        rows = embeddings[order] / np.linalg.norm(embeddings[order], axis=1, keepdims=True)
        assert found[feature] == pytest.approx(ms_score(weights[order].astype(np.float64), rows), abs=1e-6)


SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 3}


def stored_model(path: Path, seed: int) -> str:
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = timm.create_model("vit_tiny_patch16_224", **SMALL)
        state = {name: tensor + 0.2 * torch.randn_like(tensor) for name, tensor in module.state_dict().items()}
    cfg = {
        "input_size": [3, 16, 16],
        "crop_pct": 1.0,
        "num_classes": 3,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "model_args": SMALL, "pretrained_cfg": cfg})
    )
    save_file(state, path / "model.safetensors")
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    return noise(tmp_path_factory.mktemp("images"), 60, 16)


@pytest.fixture
def bundle(images: ImageSource, tmp_path: Path) -> Bundle:
    settings = ExportSettings(tokens_per_image=9, top_k=150, min_cluster_size=5, tops=3, measure_top=10, batch_size=16)
    return export(stored_model(tmp_path / "model", 1), images, "last", tmp_path / "bundle", settings)


def test_a_bundle_gets_all_measures(bundle: Bundle, images: ImageSource, tmp_path: Path) -> None:
    before = bundle.json("measures.json")
    steps: list[str] = []
    encoder = stored_model(tmp_path / "encoder", 2)
    settings = MeasureSettings(encoder=encoder, seeds=2)
    measured = measure_bundle(bundle, images, settings, progress=lambda step, done, total: steps.append(step))
    found = measured.json("measures.json")
    (layer,) = found["layers"].values()
    (old,) = before["layers"].values()
    for family in ("units", "sub_units", "random"):  # the same images as at the export: the same scores
        assert layer[family]["ms_mean"] == old[family]["ms_mean"]
        assert layer[family]["external_mean"] is not None
        assert layer[family]["external_mean"] != layer[family]["external_centred_mean"]
    assert layer["r2"] == pytest.approx(1, abs=1e-9)
    assert layer["expansion_factor"] == pytest.approx(bundle.manifest.expansion_factor)
    assert 0 < layer["stability"]["cosine"] < 1
    assert layer["stability"]["units"] > 0
    assert found["settings"] == before["settings"]
    assert found["encoder"] == encoder
    assert list(dict.fromkeys(steps)) == [
        "encode",
        "measure",
        "probe, seed 0",
        "split, seed 0",
        "probe, seed 1",
        "split, seed 1",
    ]
    assert measured.artefact_sha256 == bundle.artefact_sha256  # a verdict keeps its worth
    again = measure_bundle(measured, images, settings)
    assert again.json("measures.json") == found
    assert not again.has(HELD_OUT)
    held_out = measure_bundle(again, images, MeasureSettings(held_out=True, seeds=0))
    assert held_out.json(HELD_OUT)["images"] == 60
    assert held_out.artefact_sha256 == bundle.artefact_sha256
    one, two = facts(found), facts(found | {"layers": {"a": layer, "b": layer}})
    assert any("by the encoder" in name for name in one)
    assert len(two) - 1 == 2 * (len(one) - 1)  # no layer hides another


def test_embeddings_do_not_depend_on_the_batch(images: ImageSource, tmp_path: Path) -> None:
    encoder = load_model(stored_model(tmp_path / "encoder", 2))
    one, other = (embed(encoder, images, batch_size=size) for size in (7, 60))
    assert one.shape == (60, 12)  # the features, not the three classes
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_command_prints_and_stores(bundle: Bundle, images: ImageSource) -> None:
    before = bundle.json("measures.json")
    result = CliRunner().invoke(
        app,
        ["measure", str(bundle.root), "--images", images.name, "--seeds", "0", "--held-out"],
        env={"COLUMNS": "140"},
    )
    assert result.exit_code == 0, result.output
    assert "R² of units as sums of sub-units" in result.output
    assert "held out" in result.output
    assert "stability" not in result.output
    assert before != Bundle.open(bundle.root).json("measures.json")
    text = (
        CliRunner().invoke(app, ["measure", str(bundle.root), "--images", images.name, "--seeds", "0", "--json"]).output
    )
    assert "each" not in json.loads(text)["layers"]["blocks.0.mlp.fc2"]["units"]


def test_what_cannot_be_measured_is_refused(bundle: Bundle, images: ImageSource, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 2 to compare"):
        MeasureSettings(seeds=1)
    with pytest.raises(UsageError, match="activation instances"):
        measure_bundle(bundle, images.limited(5))
    assert isinstance(CliRunner().invoke(app, ["measure", str(bundle.root)]).exception, (UsageError, SystemExit))
    stored_model(tmp_path / "model", 3)
    with pytest.raises(EvaluationError, match="different weights"):
        measure_bundle(bundle, open_images(images.name))
