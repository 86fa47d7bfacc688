"""Names and remarks that a stranger wrote: a terminal shows them, and does not obey them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _stores import make
from typer.testing import CliRunner

from elude.cli import app
from elude.cli.faults import one_line, visible
from elude.handlers.errors import BundleError, UsageError
from elude.model_store.records import Entry
from elude.model_store.store import Store

OBEYED = ["\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "\x7f", "\r", "\b", "\u202e", "\udcff"]


@pytest.mark.parametrize("text", OBEYED)
def test_control_characters_are_written_out(text: str) -> None:
    for shown in (visible(f"a{text}b"), one_line(BundleError(f"a{text}b"))):
        assert not set(text) & set(shown) - set("[]0;title2J")
    assert visible("Größe 25 %, 日本\n\t✓") == "Größe 25 %, 日本\n\t✓"


def test_a_remark_in_a_record_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    version = store.admit(make(tmp_path / "b").root, who="a", why="b")
    path = tmp_path / "store" / "record" / "00000000.json"
    content = json.loads(path.read_text())
    content.pop("sha256")
    path.chmod(0o644)
    path.write_bytes(Entry(**(content | {"why": "x\x1b[1A\x1b[2Kadmitted"})).to_bytes())
    shown = CliRunner().invoke(app, ["store", "show", version.id, "--store", str(tmp_path / "store")])
    assert shown.exit_code == 0
    assert "\\x1b[1A" in shown.stdout
    assert "\x1b[1A" not in shown.stdout


@pytest.mark.parametrize("text", OBEYED[:4] + OBEYED[5:])
def test_a_record_takes_no_control_characters(tmp_path: Path, text: str) -> None:
    store, bundle = Store(tmp_path / "store"), make(tmp_path / "b")
    for who, why in ((f"a{text}", "b"), ("a", f"b{text}")):
        with pytest.raises(UsageError, match="control characters"):
            store.admit(bundle.root, who=who, why=why)
    assert store.admit(bundle.root, who="Ada Größe", why="two\n\nparagraphs").id == "tiny-model/1"
