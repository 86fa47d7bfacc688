"""Promotions, rollbacks and removals in any order, compared with a pile of versions per stage."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from _stores import admit, make

from elude.handlers.errors import UsageError
from elude.model_store.records import STAGES
from elude.model_store.store import Store

VERSIONS = range(1, 6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("moves")
    for number in VERSIONS:
        admit(Store(root / "store"), make(root / f"b{number}", content=bytes([number])))
    return root / "store"


@pytest.fixture
def store(base: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(base, tmp_path / "store"))


def name(number: int) -> str:
    return f"tiny-model/{number}"


class Piles:
    """What should be: for each stage the versions that were put in it, the present one on top; and what there is."""

    def __init__(self) -> None:
        self.present = list(VERSIONS)
        self.piles: dict[str, list[int]] = {stage: [] for stage in STAGES}

    def promote(self, number: int, stage: str) -> bool:
        if number not in self.present:
            return False
        if self.piles[stage][-1:] != [number]:
            self.piles[stage].append(number)
        return True

    def rollback(self, stage: str) -> bool:
        """Whether there is something to go back to; it stays as it is if that was removed."""
        pile = self.piles[stage]
        if len(pile) < 2 or pile[-2] not in self.present:
            return False
        pile.pop()
        return True

    def take_out(self, number: int, stage: str) -> bool:
        pile = self.piles[stage]
        if pile and pile[-1] != number:
            return number in self.present
        return self.rollback(stage)

    def gc(self, keep: int) -> None:
        held = {number for pile in self.piles.values() for number in pile[-2:]}
        held |= set(sorted(self.present, reverse=True)[:keep])
        self.present = [number for number in self.present if number in held]

    def stages(self) -> dict[int, tuple[str, ...]]:
        return {n: tuple(s for s in STAGES if self.piles[s][-1:] == [n]) for n in self.present}


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_moves_and_removals_ends_as_a_pile_would(store: Store, seed: int) -> None:
    rng, piles = random.Random(seed), Piles()
    done = {"promote": 0, "rollback": 0, "take out": 0, "gc": 0, "refused": 0}
    for _ in range(60):
        stage, number = rng.choice(STAGES), rng.choice(VERSIONS)
        what = rng.choices(["promote", "rollback", "take out", "gc"], [5, 3, 3, 2])[0]
        if what == "gc":
            keep = rng.randint(2, 4)
            store.gc(keep=keep, who="a", why="b")
            piles.gc(keep)
            expected = True
        else:
            calls = {
                "promote": (lambda n=number, s=stage: store.promote(name(n), s, who="a", why="b"), "promote"),
                "rollback": (lambda s=stage: store.rollback("tiny-model", s, who="a", why="b"), "rollback"),
                "take out": (lambda n=number, s=stage: store.rollback(name(n), s, who="a", why="b"), "take_out"),
            }
            call, method = calls[what]
            expected = getattr(piles, method)(*([stage] if what == "rollback" else [number, stage]))
            if expected:
                call()
            else:
                with pytest.raises(UsageError):
                    call()
        done["refused" if not expected else what] += 1
        assert {version.number: version.stages for version in store.list()} == piles.stages()
    assert min(done.values()) > 0
    store.verify()


def test_what_a_rollback_puts_back_is_never_removed(store: Store) -> None:
    for number in (5, 3, 1):
        store.promote(name(number), who="a", why="b")
        store.gc(keep=0, who="a", why="b") if number == 1 else None
    assert [version.number for version in store.list()] == [1, 3]
    assert store.rollback("tiny-model", who="a", why="b").id == name(3)
    with pytest.raises(UsageError, match="no version"):
        store.rollback("tiny-model", who="a", why="b")


def test_a_rollback_that_is_sent_twice_goes_back_once(store: Store) -> None:
    for number in (1, 2, 3):
        store.promote(name(number), who="a", why="b")
    for _ in range(3):
        assert store.rollback(name(3), who="a", why="b").id == name(2)
    entries = len(store.record())
    for _ in range(3):
        assert store.promote(name(2), who="a", why="b").stages == ("production",)
    assert len(store.record()) == entries


@pytest.mark.parametrize("version", ["tiny-model/", "tiny-model/9", "tiny-model/02", "tiny-model/2 ", "tiny-model/2/"])
def test_a_name_that_is_no_version_moves_nothing(store: Store, version: str) -> None:
    """``tiny-model/`` is what a script gives whose variable is empty: each call would go one step further back."""
    for number in (1, 2, 3):
        store.promote(name(number), who="a", why="b")
    for call in (store.rollback, store.promote):
        with pytest.raises(UsageError):
            call(version, who="a", why="b")
    assert store.show("tiny-model/production").number == 3
