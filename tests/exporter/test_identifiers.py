"""The split depends on what the images show, not on what they are called; identifiers can be carried over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from _graphs import random_split
from _images import noise, plain
from _models import Convolutions, TinyBlocks

from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.export.identifiers import canonical, carried_over, renumbered
from elude.exporter.export.pipeline import export
from elude.exporter.images import open_images
from elude.exporter.images.screen import screen, with_hashes
from elude.exporter.models.layers import find_layers
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.errors import ImageError, UsageError
from elude.handlers.images.preprocess import Preprocess

SIZE = 8
COLOUR = Preprocess((3, SIZE, SIZE), "nearest", 1.0, "center", (0.5,) * 3, (0.5,) * 3)
QUICK = ExportSettings(
    max_images=50, tokens_per_image=3, top_k=100, min_cluster_size=5, tops=2, measure_top=5, verify_images=4
)


def exported(images: Path, out: Path, **options: object) -> Bundle:
    return export(TinyBlocks(), images, "last", out, QUICK, preprocess=COLOUR, kind="classes", **options)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    noise(root, 60, SIZE)
    return root


@pytest.fixture(scope="module")
def bundle(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(images, tmp_path_factory.mktemp("bundle") / "bundle")


def test_renamed_images_give_the_same_split_and_graph(images: Path, bundle: Bundle, tmp_path: Path) -> None:
    """File names, folders' names, and with them the order; more images than are taken, so the choice counts too."""
    shuffled = np.random.default_rng(1).permutation(60)
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        folder = tmp_path / "renamed" / {"a": "zebra", "b": "ant"}[path.parent.name]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{shuffled[number]}.png")
    again = exported(tmp_path / "renamed", tmp_path / "again")
    assert max(bundle.manifest.layers[0].parts) > 1  # else nothing is compared
    for name in ("disentangled.safetensors", "model.onnx"):
        assert again.manifest.files[name] == bundle.manifest.files[name]


def test_unreadable_images_are_left_out_counted_and_named(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "messy")
    paths = sorted((tmp_path / "messy").rglob("*.png"))
    paths[0].write_bytes(paths[0].read_bytes()[:90])
    paths[7].write_bytes(b"")
    paths[9].write_text("no image")
    notes: list[str] = []
    settings = ExportSettings(**{**QUICK.__dict__, "max_images": 60})
    made = export(
        TinyBlocks(),
        tmp_path / "messy",
        "last",
        tmp_path / "out",
        settings,
        preprocess=COLOUR,
        kind="classes",
        notify=notes.append,
    )
    bad = {str(path.relative_to(tmp_path / "messy")) for path in (paths[0], paths[7], paths[9])}
    measures = made.json("measures.json")
    assert set(measures["unreadable_images"]["probing"]) == bad
    assert measures["settings"]["probing_images"] == 57
    (note,) = notes
    assert all(name in note for name in bad)
    with pytest.raises(ImageError) as caught:
        screen(open_images(tmp_path / "messy"), COLOUR, 60, strict=True)
    assert all(name in str(caught.value) for name in bad)  # all at once


def test_a_folder_without_one_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"a\.png"):
        screen(open_images(tmp_path), plain(8), 9)


def test_each_class_keeps_its_share(tmp_path: Path) -> None:
    source = noise(tmp_path, 40, 4, ("a", "a", "a", "b"))
    chosen = screen(source, plain(4), 12).images
    labels = [entry.label for entry in chosen.entries]
    assert (labels.count("a"), labels.count("b")) == (9, 3)
    assert [entry.sha256 for entry in chosen.entries] == sorted(entry.sha256 for entry in chosen.entries)
    assert with_hashes(chosen) is chosen
    assert [entry.sha256 for entry in with_hashes(source).entries][:2] != ["", ""]


def with_representatives(split: LayerSplit, seed: int) -> LayerSplit:
    rows = np.random.default_rng(seed).standard_normal(split.representatives.shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return LayerSplit(split.layer, split.parts, split.masks, split.rho, rows)


def random(seed: int = 0) -> LayerSplit:
    (layer,) = find_layers(Convolutions(), "pointwise")
    return with_representatives(random_split(layer, seed), seed)


def shuffled(split: LayerSplit, seed: int) -> LayerSplit:
    generator = np.random.default_rng(seed)
    return renumbered(split, [generator.permutation(parts).tolist() for parts in split.parts])


def same(one: LayerSplit, other: LayerSplit) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("masks", "representatives"))


def test_renumbering_moves_masks_and_representatives_together() -> None:
    split = random()
    order = [list(reversed(range(parts))) for parts in split.parts]
    other = renumbered(split, order)
    rows = np.concatenate([first + np.array(parts) for first, parts in zip(split.first, order, strict=True)])
    np.testing.assert_array_equal(other.shares(), split.shares()[rows])
    np.testing.assert_array_equal(other.representatives, split.representatives[rows])
    assert same(renumbered(other, order), split)


def test_canonical_numbers_do_not_depend_on_the_numbers_before() -> None:
    split = canonical(random())
    assert same(canonical(shuffled(split, 4)), split)
    for first, parts in zip(split.first, split.parts, strict=True):
        omega = split.omega()[first : first + parts]
        assert (np.diff(omega) <= 0).all()


def test_identifiers_are_carried_over_whatever_the_numbers_are() -> None:
    older = random()
    again, carried = carried_over(shuffled(older, 5), older)
    assert same(again, older)
    assert (carried.kept, carried.moved, carried.new, carried.gone) == (older.sub_units, {}, [], [])


def test_what_changed_is_listed() -> None:
    older = random()
    unit = int(np.flatnonzero(older.parts == 4)[0])
    first = int(older.first[unit])
    fewer = np.delete(np.arange(older.sub_units), first + 1)  # its second sub-unit has gone
    masks = older.masks.copy()
    masks[unit] = 0b111
    parts = older.parts.copy()
    parts[unit] = 3
    newer = LayerSplit(older.layer, parts, masks, older.rho, older.representatives[fewer])
    result, carried = carried_over(newer, older)
    name = f"{older.layer}/u{unit}"
    assert carried.gone == [f"{name}.s1"]
    assert carried.moved == {f"{name}.s3": f"{name}.s1"}
    assert carried.kept == older.sub_units - 2
    np.testing.assert_array_equal(result.representatives[first + 1], older.representatives[first + 3])
    back, carried = carried_over(older, newer)
    assert carried.new == [f"{name}.s3"]
    np.testing.assert_array_equal(back.representatives[first + 3], older.representatives[first + 1])
    with pytest.raises(UsageError, match="same architecture"):
        carried_over(older, random_split(find_layers(Convolutions(), "stem")[0], 0))


def test_an_export_like_an_older_bundle_keeps_its_identifiers(images: Path, bundle: Bundle, tmp_path: Path) -> None:
    again = exported(images, tmp_path / "again", like=bundle.root)
    told = again.json("identifiers.json")
    assert told["like"] == bundle.artefact_sha256
    (layer,) = again.manifest.layers
    assert told["layers"][layer.name] == {"kept": layer.sub_units, "moved": {}, "new": [], "gone": []}
    assert again.manifest.files["disentangled.safetensors"] == bundle.manifest.files["disentangled.safetensors"]
    json.dumps(told)
