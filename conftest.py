"""Every code block of the documents is run as it stands: shell and Python of a page in order, in one new folder;

TOML and JSON are read.

A server that a block starts in the foreground keeps running until the page ends, as in a reader's
first terminal. What cannot be run here is marked in the page: ``<!-- skip: next "why" -->``.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from _shell import Shell, commands
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
VISIBLE = 0.1  # of a probability, or of an output
ELSEWHERE = {
    "docs/clients.md",  # run by tests/contract/test_clients.py, against torch
    "docs/photographs.md",  # run by tests/e2e/test_photographs_page.py, where there are photographs
}


def run_shell(example: Example) -> None:
    """A shell block, in the page's own shell; what it steers must visibly change the answer."""
    for command in commands(example.parsed):
        printed = example.namespace["shell"].run(command)
        if command.startswith("elude call steer") and "--no-compare" not in command:
            change = json.loads(printed)["change"]
            assert max(map(abs, change.values())) >= VISIBLE, f"$ {command}\n{change}"


def read_toml(example: Example) -> None:
    tomllib.loads(example.parsed)


def read_json(example: Example) -> None:
    json.loads(example.parsed)


def open_page(namespace: dict[str, Any]) -> None:
    """A new, empty folder for the page; one that starts from the quickstart says so and calls ``prepare``."""
    namespace["before"] = Path.cwd()
    namespace["shell"] = Shell()
    os.chdir(namespace["shell"].folder)


def close_page(namespace: Mapping[str, Any]) -> None:
    os.chdir(namespace["before"])
    namespace["shell"].close()


pytest_collect_file = Sybil(
    parsers=[
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser("sh", run_shell),
        CodeBlockParser("toml", read_toml),
        CodeBlockParser("json", read_json),
    ],
    patterns=[page for page in PAGES if page not in ELSEWHERE],
    setup=open_page,
    teardown=close_page,
).pytest()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A page exports, measures and serves, and what is in e2e/ starts servers: ``make test-all`` runs them."""
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.timeout(1200))
        if item.path.suffix == ".md" or "e2e" in item.path.parts:
            item.add_marker(pytest.mark.slow)
