"""A named bundle from end to end: names in the catalogue, found by search, steered by concept; a new artefact, the
old verdict gone.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _serving import images, make_bundle
from typer.testing import CliRunner

from elude.cli import app
from elude.exporter.naming.clip import ClipSettings
from elude.exporter.naming.evidence import Name
from elude.exporter.naming.name_bundle import Naming, name_by_labels, name_by_vocabulary
from elude.exporter.naming.write_names import rename
from elude.exporter.scoring.bundle_activity import activity_of, images_for
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.bundle.catalogue import Catalogue
from elude.handlers.errors import BundleError, UsageError
from elude.handlers.requests.calls import Call
from elude.handlers.service import Service

NAMES = [
    Name(3, "shoe", "labels", 0.6, {"q": 1e-4}),
    Name(5, "shoe", "labels", 0.9),
    Name(8, "shoe", "neighbour", 0.99),
    Name(9, "hat", "labels", 1),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("original") / "bundle").root


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Bundle:
    import shutil

    shutil.copytree(original, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


def ask(service: Service, **body: Any) -> tuple[int, Any]:
    answer = service.answer([Call(json.dumps(body).encode())])[0]
    return answer.status, json.loads(answer.body)


def test_names_are_found_searched_and_steered(bundle: Bundle) -> None:
    named, _ = rename(bundle, NAMES, {})
    service = Service.open(named.root)
    status, found = ask(service, op="search", query="SHO")
    assert status == 200
    assert {row["index"]: (row["name"], row["name_method"], row["name_score"]) for row in found["sub_units"]} == {
        3: ("shoe", "labels", 0.6),
        5: ("shoe", "labels", 0.9),
        8: ("shoe", "neighbour", 0.99),
    }
    image = base64.b64encode(images(1)[0]).decode()
    identifier = {index: service.catalogue.sub_unit(index).id for index in (3, 5, 8)}  # type: ignore[union-attr]
    for top, expected in ((None, [5, 3, 8]), (2, [5, 3]), (1, [5])):
        edit = {"concept": "Shoe", "action": "scale", "value": -5.0} | ({} if top is None else {"top": top})
        status, by_concept = ask(service, op="steer", image=image, edits=[edit])
        assert status == 200
        assert [row["id"] for row in by_concept["edits"]] == [identifier[index] for index in expected]
        edits = [{"id": identifier[index], "action": "scale", "value": -5.0} for index in expected]
        assert ask(service, op="steer", image=image, edits=edits)[1]["steered"] == by_concept["steered"]
    assert ask(service, op="steer", image=image, edits=[{"id": identifier[3], "top": 1, "action": "ablate"}])[0] == 400
    assert ask(service, op="steer", image=image, edits=[{"concept": "shoes", "action": "ablate"}])[0] == 404


def test_a_renamed_bundle_is_a_new_artefact_and_what_was_said_of_the_old_one_is_gone(bundle: Bundle) -> None:
    bundle = bundle.add({"quality.json": b"{}", "verdict.json": b"{}", "notes.txt": b"kept"})
    named, left_out = rename(bundle, NAMES, {"method": "labels"})
    assert left_out == ("quality.json", "verdict.json")
    assert not named.has("verdict.json")
    assert named.path("notes.txt").read_bytes() == b"kept"
    assert named.artefact_sha256 != bundle.artefact_sha256
    assert Bundle.open(named.root, verify=True).json("names.json")["names"][0] == {
        "index": 3, "name": "shoe", "method": "labels", "score": 0.6, "q": 1e-4,
    }  # fmt: skip
    again, _ = rename(named, NAMES, {"method": "labels"})
    assert again.artefact_sha256 == named.artefact_sha256


def test_everything_but_the_names_stays(bundle: Bundle) -> None:
    before = Catalogue(bundle.path("catalogue.sqlite"))
    rows = before.sub_units()
    assert rows == [before.sub_unit(index) for index in range(before.count())]
    units, pictures = before.units(), list(before.images())
    named, _ = rename(bundle, NAMES, {}, keep=True)
    after = Catalogue(named.path("catalogue.sqlite"))
    assert after.units() == units
    assert list(after.images()) == pictures
    changed = {name.index for name in NAMES}
    assert [row for row in after.sub_units() if row.index not in changed] == [
        row for row in rows if row.index not in changed
    ]
    rename(Bundle.open(named.root), [], {})
    assert {row.name for row in Catalogue(named.root / "catalogue.sqlite").sub_units()} == {None}


def test_a_preset_that_would_lose_its_concept_stops_the_renaming(bundle: Bundle) -> None:
    preset = {"off": [{"concept": "concept 3", "action": "ablate"}]}
    bundle = bundle.add({"presets.json": json.dumps(preset).encode()})
    with pytest.raises(BundleError, match="off"):
        rename(bundle, NAMES, {})
    assert Bundle.open(bundle.root).artefact_sha256 == bundle.artefact_sha256
    assert Catalogue(bundle.path("catalogue.sqlite")).name(3) == "concept 3"


def test_activity_is_what_the_session_says(bundle: Bundle) -> None:
    source = images_for(bundle, None)
    assert source is not None
    found = activity_of(bundle, source, limit=5, batch_size=2)
    service = Service.open(bundle.root)
    pixels = np.stack([found.images.pixels(i, service.preprocess) for i in range(5)])
    direct = service.session.run(service.preprocess.normalise(pixels), inspect=True).sub_units
    np.testing.assert_allclose(found.peak, next(iter(direct.values())).max(axis=1), rtol=1e-5, atol=1e-5)
    assert len(set(found.classes)) == 5


def test_naming_by_labels_and_by_words(bundle: Bundle) -> None:
    by_labels = name_by_labels(bundle, None, naming=Naming(max_images=300))
    assert by_labels.names
    assert {name.method for name in by_labels.names} <= {"labels", "neighbour"}
    assert {row.name for row in Catalogue(by_labels.bundle.path("catalogue.sqlite")).sub_units()} >= {
        name.name for name in by_labels.names
    }

    class Brightness:
        def encode_images(self, pictures: list[Any]) -> np.ndarray:
            bright = np.array([np.asarray(each).mean() / 255 for each in pictures])
            return np.stack([bright, 1 - bright], axis=1).astype(np.float32)

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.eye(2, dtype=np.float32)

    words = by_labels.bundle.root.parent / "words.txt"
    words.write_text("bright\ndark\n")
    named = name_by_vocabulary(
        by_labels.bundle,
        None,
        Brightness(),
        ClipSettings(top=20),
        vocabulary=words,
        naming=Naming(None, max_images=200),
    )
    assert {name.name for name in named.names} <= {"bright", "dark"}
    assert named.bundle.json("names.json")["settings"]["encoder"] == "Brightness"


def test_images_without_labels_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(images(1)[0])
    with pytest.raises(UsageError, match="no labels"):
        name_by_labels(bundle, tmp_path / "flat")


def test_the_command(bundle: Bundle) -> None:
    before = (bundle.root / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=r"\d+ names.*--replace"):
        CliRunner().invoke(app, ["name", str(bundle.root), "--json"], catch_exceptions=False)
    assert (bundle.root / "manifest.json").read_bytes() == before
    command = ["name", str(bundle.root), "--max-images", "200", "--top", "20", "--json", "--replace"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["named"].endswith("sub-units")
    assert facts["artefact"] == Bundle.open(bundle.root).artefact_sha256


def test_images_on_which_no_label_can_fit_take_no_name_away(bundle: Bundle, tmp_path: Path) -> None:
    """Three images per class cannot be half of the strongest fifty."""
    for number, data in enumerate(images(6)):
        path = tmp_path / "few" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    before = (bundle.root / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=r"label is on 3 of 6; 25 of the strongest 50.*--top"):
        name_by_labels(bundle, tmp_path / "few")
    assert (bundle.root / "manifest.json").read_bytes() == before
