"""What held-out images show of the concepts: counted by hand, read back, and refused where it does not fit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from _images import noise, plain

from elude.exporter.atlas.held_out import HeldOut, held_out_concepts
from elude.exporter.scoring.activity import Activity
from elude.handlers.bundle.catalogue import ConceptRow
from elude.handlers.errors import BundleError

CONCEPTS = (
    ConceptRow(0, "clear where it was found", 0.9, 1.0, (0, 1)),  # purity on the images of the split
    ConceptRow(1, "clear on new images", 0.9, 0.5, (2, 3)),
    ConceptRow(2, None, 0.9, 1.0, (4,)),
)


def activity(peak: np.ndarray) -> Activity:
    token = np.arange(peak.size, dtype=np.int32).reshape(peak.shape)
    return Activity(peak.astype(np.float32), token, np.ones(peak.shape[1]), np.zeros(peak.shape[1]), 1)


def shown(tmp_path: Path) -> tuple[HeldOut, np.ndarray, list[str]]:
    images = noise(tmp_path / "new", 60, 8)
    labels = [str(entry.label) for entry in images.entries]
    of_b = np.array([label == "b" for label in labels])
    peak = np.random.default_rng(0).uniform(0.1, 1, (60, 5))
    peak[:, 2:4] += 2 * of_b[:, None]  # concept 1 follows class b
    layers = [activity(peak[:, :2]), activity(peak[:, 2:])]
    return held_out_concepts(CONCEPTS, layers, images, plain(8)), peak, labels


def test_the_clearest_are_so_on_the_held_out_images(tmp_path: Path) -> None:
    held_out, peak, labels = shown(tmp_path)
    assert held_out.clearest == (1, 0)  # on the images of the split it was the other way round
    assert held_out.images == 60
    for concept in CONCEPTS:
        members = peak[:, list(concept.members)]
        strength = (members / members.max(axis=0)).mean(axis=1)
        order = np.argsort(-strength)
        votes = Counter(labels[image] for image in order[:16])
        assert held_out.purities[concept.number] == max(votes.values()) / 16
        assert [top.image for top in held_out.tops[concept.number]] == order[:8].tolist()
        assert [top.activation for top in held_out.tops[concept.number]] == pytest.approx(strength[order[:8]])
    assert held_out.purities[1] == 1
    assert set(held_out.random) == {0, 1, 2}
    assert {row.label for row in held_out.pictures.values()} == {"a", "b"}


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    held_out, _, _ = shown(tmp_path)
    assert HeldOut.from_json(json.loads(json.dumps(held_out.to_json())), 3) == held_out


@pytest.mark.parametrize("broken", ["clearest", "pictures", "purities", "tops", "png"])
def test_what_does_not_fit_the_catalogue_is_refused(tmp_path: Path, broken: str) -> None:
    value = shown(tmp_path)[0].to_json()
    change = {"clearest": [7], "pictures": {}, "purities": [1.0], "tops": {}}
    if broken == "png":
        next(iter(value["pictures"].values()))["png"] = "no base64"
    else:
        value[broken] = change[broken]
    with pytest.raises(BundleError, match="elude measure"):
        HeldOut.from_json(value, 3)
