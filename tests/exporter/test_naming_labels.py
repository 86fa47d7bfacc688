"""Names from labels: the test by hand and against Fisher's, its calibration on shuffled labels, and what is never
named.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from elude.exporter.images.classes import LEVELS, NINE, enough_per_class, readable, synsets, with_coarser
from elude.exporter.naming.attributes import read_attributes
from elude.exporter.naming.evidence import Name, names_json
from elude.exporter.naming.labels import Labels, LabelSettings, names_from_labels, tail
from elude.exporter.naming.neighbours import names_from_neighbours
from elude.exporter.naming.superclasses import read_superclasses
from elude.exporter.scoring.measures import purity
from elude.handlers.errors import UsageError

CLASSES = ["cat", "dog", "sheep"] * 40


def planted(noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """float32 (120, 4): follows cats, follows dogs, follows nothing, never fires."""
    rng = np.random.default_rng(seed)
    values = noise * rng.random((len(CLASSES), 4)).astype(np.float32)
    values[:, 0] += np.array(CLASSES) == "cat"
    values[:, 1] += np.array(CLASSES) == "dog"
    values[:, 3] = -1
    return values


def test_tail_by_hand() -> None:
    # 4 images, 2 carry the label, 2 are drawn: both carry it in 1 of 6 ways, at least one in 5 of 6
    assert tail(np.array(2), np.array(2), np.array(2), 4) == pytest.approx(1 / 6)
    assert tail(np.array(1), np.array(2), np.array(2), 4) == pytest.approx(5 / 6)
    assert tail(np.array(0), np.array(2), np.array(2), 4) == pytest.approx(1)


@given(st.integers(1, 30), st.data())
def test_tail_is_fishers_exact_test(images: int, data: st.DataObject) -> None:
    among, drawn = data.draw(st.integers(0, images)), data.draw(st.integers(0, images))
    carrying = data.draw(st.integers(max(0, drawn + among - images), min(drawn, among)))
    table = [[carrying, drawn - carrying], [among - carrying, images - among - drawn + carrying]]
    expected = fisher_exact(table, "greater").pvalue
    assert tail(np.array(carrying), np.array(drawn), np.array(among), images) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )


def test_planted_classes_are_named_and_the_rest_is_not() -> None:
    found = names_from_labels(planted(), Labels.of_classes(CLASSES), LabelSettings(top=30), first=100)
    assert [(name.index, name.name, name.method, name.score) for name in found] == [
        (100, "cat", "labels", 1),
        (101, "dog", "labels", 1),
    ]
    assert found[0].evidence["carrying"] == found[0].evidence["strongest"] == 30
    assert found[0].evidence["expected"] == pytest.approx(1 / 3)
    assert found[0].evidence["p"] <= found[0].evidence["q"] <= 0.01


def test_significance_alone_is_not_enough() -> None:
    peak = planted()[:, :1]
    mixed = [name if i % 9 < 4 else "other" for i, name in enumerate(CLASSES)]  # 'cat' on two thirds of the strongest
    labels = Labels.of_classes(mixed)
    assert names_from_labels(peak, labels, LabelSettings(top=40, purity=0.7)) == []
    assert [name.name for name in names_from_labels(peak, labels, LabelSettings(top=40, purity=0.0))] == ["cat"]


def test_on_shuffled_labels_no_more_names_than_stated() -> None:
    """Nothing is true here, so the chance that any name is given at all is at most the false discovery rate."""
    rng = np.random.default_rng(1)
    peak = rng.random((300, 40)).astype(np.float32)
    peak[:, 20:] = peak[:, :20] + 0.05 * rng.random((300, 20))  # half of the sub-units repeat the other half
    labels = np.array(["a", "b", "c", "d"] * 75)
    rate, runs = 0.1, 300
    settings = LabelSettings(top=30, fdr=rate, purity=0.0)
    false = sum(
        bool(names_from_labels(peak, Labels.of_classes(list(rng.permutation(labels))), settings)) for _ in range(runs)
    )
    assert false / runs <= rate + 3 * (rate * (1 - rate) / runs) ** 0.5


def test_without_the_correction_it_would_fail_that_test() -> None:
    rng = np.random.default_rng(2)
    peak, labels = rng.random((300, 40)).astype(np.float32), np.array(["a", "b", "c", "d"] * 75)
    order = np.argsort(-peak, axis=0)[:30]
    false = 0
    for _ in range(50):
        shuffled = Labels.of_classes(list(rng.permutation(labels)))
        p = tail(shuffled.carries[order].sum(axis=0), np.array(30), shuffled.carries.sum(axis=0)[None], 300)
        false += bool((p <= 0.1).any())
    assert false == 50


def test_what_fires_on_too_few_images_stays_unnamed() -> None:
    peak = planted(noise=0)
    peak[20:, 0] = 0  # above 0 on seven cats only
    assert [
        name.name
        for name in names_from_labels(peak[:, :1], Labels.of_classes(CLASSES), LabelSettings(top=30, fewest=7))
    ] == ["cat"]
    assert names_from_labels(peak[:, :1], Labels.of_classes(CLASSES), LabelSettings(top=30, fewest=8)) == []


def test_no_labels_no_names_and_wrong_input_is_refused() -> None:
    assert names_from_labels(planted(), Labels.of_classes([None] * 120)) == []
    with pytest.raises(UsageError, match="labels of 3 images"):
        names_from_labels(planted(), Labels.of_classes(["a"] * 3))
    for wrong in ({"top": 0}, {"fdr": 0.0}, {"purity": 2.0}):
        with pytest.raises(UsageError):
            LabelSettings(**wrong)


def test_attributes_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "attributes.csv"
    table.write_text("image,striped,colour\na.png,1,red\nb.png,no,\nc.png,yes,blue\n")
    labels = read_attributes(table, ["c.png", "a.png", "x.png", "b.png"])
    assert labels.names == ("striped", "blue", "red")
    assert labels.carries.tolist() == [[True, True, False], [True, False, True], [False] * 3, [False] * 3]


@pytest.mark.parametrize(
    "text", ["", "image\n", "image,a\nx.png\n", "image,a\na.png,1\na.png,0\n", "image,a\nz.png,1\n"]
)
def test_bad_tables_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError):
        read_attributes(tmp_path / "t.csv", ["a.png"])


def test_neighbours_lend_names_but_not_on() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 200)).astype(np.float32)
    peak = np.stack([one, 3 * one + 0.01 * rng.random(200), other, np.full(200, -1)], axis=1).astype(np.float32)
    lent = names_from_neighbours(peak, [Name(0, "cat", "labels", 1.0)])
    assert [(name.index, name.name, name.method, dict(name.evidence)) for name in lent] == [
        (1, "cat", "neighbour", {"lender": 0})
    ]
    assert lent[0].score == pytest.approx(np.corrcoef(peak[:, 0], peak[:, 1])[0, 1], abs=1e-5)
    assert names_from_neighbours(peak, [Name(1, "cat", "neighbour", 0.9)]) == []
    assert names_from_neighbours(peak, [Name(0, "cat", "labels", 1.0)], least=1.1) == []


def test_evidence_is_written() -> None:
    written = names_json([Name(3, "b", "labels", 0.5, {"q": 0.1}), Name(1, "a", "clip", 2.0)], {"top": 5})
    assert [row["index"] for row in written["names"]] == [1, 3]
    assert written["names"][1] == {"index": 3, "name": "b", "method": "labels", "score": 0.5, "q": 0.1}


def dogs_and_others() -> tuple[list[str], list[int]]:
    """One image of each of 100 dogs and of 300 other things, as synsets, and the numbers of the dogs."""
    names = synsets()
    labels = [names[output] for output in (*NINE["dog"][:100], *range(600, 900))]
    return labels, list(range(100))


def test_with_one_image_per_class_a_sub_unit_that_follows_dogs_is_named_dog() -> None:
    labels, dogs = dogs_and_others()
    rng = np.random.default_rng(0)
    peak = rng.uniform(0, 1, (len(labels), 3)).astype(np.float32)
    peak[dogs, 0] += 2
    rows = Labels.of_classes(labels)
    found = names_from_labels(peak, rows)
    assert [(name.index, name.name) for name in found] == [(0, "dog")]
    assert found[0].evidence["carrying"] == 50
    shuffled = [names_from_labels(peak, Labels.of_classes(list(rng.permutation(labels)))) for _ in range(20)]
    assert sum(map(bool, shuffled)) <= 1


def test_with_many_images_of_a_class_its_own_word_wins_over_the_coarser_one() -> None:
    names = synsets()
    labels = [names[251]] * 60 + [names[output] for output in NINE["dog"] if output != 251] + [names[700]] * 300
    peak = np.zeros((len(labels), 1), np.float32)
    peak[:60, 0] = 1
    (found,) = names_from_labels(peak, Labels.of_classes(labels))
    assert found.name == "dalmatian"


def test_classes_are_called_by_words_and_those_of_one_word_stay_apart() -> None:
    cranes = ("n02012849", "n03126707")
    assert readable(("n02110341", "own", *cranes)) == ("dalmatian", "own", "crane (n02012849)", "crane (n03126707)")
    assert len(set(readable(synsets()))) == 1000
    assert with_coarser(["n02110341", None, "own"]) == [("dalmatian", "dog", "mammal", "animal"), (), ("own",)]


def test_a_sub_unit_that_follows_mammals_of_which_most_are_dogs_is_not_called_dog() -> None:
    names = synsets()
    dogs, other_mammals, rest = NINE["dog"][:100], range(330, 380), range(600, 900)
    labels = [names[output] for output in (*dogs, *other_mammals, *rest)]
    peak = np.zeros((len(labels), 1), np.float32)
    peak[60:120, 0] = 1  # 40 dogs and 20 others
    (found,) = names_from_labels(peak, Labels.of_classes(labels))
    assert found.name == "mammal"


def test_the_levels_of_animals_hold_the_finer_categories() -> None:
    for finer, coarser in (("dog", "mammal"), ("carnivore", "mammal"), ("primate", "mammal"), ("insect", "arthropod")):
        assert set(NINE[finer]) < set(LEVELS[coarser]) < set(LEVELS["animal"])
    assert set(NINE["bird"]) < set(LEVELS["bird"])
    assert not set(LEVELS["bird"]) & set(LEVELS["mammal"])
    assert not set(LEVELS["arthropod"]) & {*LEVELS["mammal"], *LEVELS["bird"], *NINE["reptile"], *NINE["fish"]}


def test_superclasses_of_own_classes_name_what_no_class_does(tmp_path: Path) -> None:
    table = tmp_path / "superclasses.csv"
    table.write_text("cat,pet\ndog,pet\nsheep, farm animal \n\ncat,animal\n")
    above = read_superclasses(table, ["cat", None])
    assert above == {"cat": ("pet", "animal"), "dog": ("pet",), "sheep": ("farm animal",)}
    peak = (planted()[:, :1] + planted()[:, 1:2]) / 2  # follows cats and dogs alike
    peak[:, 0] *= np.array(CLASSES) != "sheep"
    settings = LabelSettings(top=80, purity=0.9)
    assert names_from_labels(peak, Labels.of_classes(CLASSES), settings) == []
    assert [name.name for name in names_from_labels(peak, Labels.of_classes(CLASSES, above), settings)] == ["pet"]


@pytest.mark.parametrize("text", ["cat\n", "cat,pet,animal\n", "cat,\n", "horse,pet\n", "", "\udcff"])
def test_bad_superclasses_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode(errors="surrogateescape"))
    for path in (tmp_path / "t.csv", tmp_path / "none.csv"):
        with pytest.raises(UsageError):
            read_superclasses(path, CLASSES)


@pytest.mark.parametrize(
    ("labels", "enough"),
    [(["a", "b"] * 2, True), (["a", "a", "b"], False), (["a", None, None], False), ([], False), (["a", "a"], True)],
)
def test_classes_are_looked_at_from_two_images_each(labels: list[str | None], enough: bool) -> None:
    assert enough_per_class(labels) is enough
    strongest = np.zeros((2, 3), np.int64)
    if labels:
        assert np.isnan(purity(strongest, labels)).all() != enough
