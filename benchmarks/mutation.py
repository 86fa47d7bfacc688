"""Mutation testing of the gate's decision code: which small faults would no test notice?

Every mutant is one change of one place of the syntax tree: a comparison turned or moved by its boundary, ``and`` and ``or`` swapped, a
condition held true or false, a constant changed, a statement left out. Each runs in a forked process that sees the mutated module
instead of the file; the files are not touched. What survives is listed, to be read: is it equivalent, stricter, or a hole?

Usage: python benchmarks/mutation.py [--quick] [--only quality.checks] [--out docs/benchmarks/mutation.md]
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
GATE = ["tests/quality/test_gate.py", "tests/quality/test_presets_gate.py"]
STORE = ["tests/model_store/test_signing.py", "tests/model_store/test_store.py"]
STORE_TESTS = "unproven or waived or archives or requires or who_and or junk or requirements or signature or policies"
TARGETS = {
    "quality.checks": (GATE, ""),
    "quality.gate": (GATE, ""),
    "quality.evidence": (GATE, ""),
    "quality.verdict": (GATE, ""),
    "quality.preset_checks": (GATE, ""),
    "handlers.admission": (["tests/quality/test_presets_gate.py", *STORE], STORE_TESTS + " or presets or ruling"),
    "handlers.trust": (STORE[:1], ""),
    "model_store.admission": (STORE, STORE_TESTS),
}
TURNED: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.GtE: [ast.Gt, ast.Lt],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.Lt: [ast.LtE, ast.GtE],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}
WORDS = {"fail": ["pass", "warn"], "pass": ["fail"], "warn": ["pass", "fail"], "bound": ["point"], "point": ["bound"], "waived": ["fail"]}


@dataclass(frozen=True)
class Mutant:
    """One change: its line, what it was and became, and the changed tree."""

    line: int
    what: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a module's source; texts for people (messages, docstrings) are left alone."""
    tree = ast.parse(source)
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    silent |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in silent:
            continue
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            place = next(other for i, other in enumerate(ast.walk(changed)) if i == number)
            result = change(place)
            changed = _Replace(place, result).visit(changed)
            yield Mutant(getattr(node, "lineno", 0), f"{ast.unparse(node)[:90]}  →  {what}", ast.fix_missing_locations(changed))


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:  # noqa: PLR0912  # one branch a kind of fault
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in TURNED.get(type(operator), []):

                def turn(place: ast.Compare, i: int = i, other: type[ast.cmpop] = other) -> ast.AST:
                    place.ops[i] = other()
                    return place

                yield f"{other.__name__}", turn
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or if isinstance(node.op, ast.And) else ast.And

        def swap(place: ast.BoolOp) -> ast.AST:
            place.op = other_op()
            return place

        yield other_op.__name__, swap
        for i in range(len(node.values)):

            def drop(place: ast.BoolOp, i: int = i) -> ast.AST:
                left = [value for k, value in enumerate(place.values) if k != i]
                return left[0] if len(left) == 1 else ast.BoolOp(place.op, left)

            yield f"without part {i + 1}", drop
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "operand", lambda place: place.operand
    elif isinstance(node, ast.If | ast.IfExp):
        for held in (True, False):

            def hold(place: Any, held: bool = held) -> ast.AST:
                place.test = ast.Constant(held)
                return place

            yield f"condition {held}", hold
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield str(not node.value), lambda place: ast.Constant(not place.value)
        elif isinstance(node.value, int | float):
            yield f"{node.value + 1}", lambda place: ast.Constant(place.value + 1)
        elif isinstance(node.value, str):
            for word in WORDS.get(node.value, []):
                yield repr(word), lambda place, word=word: ast.Constant(word)
    elif isinstance(node, ast.Raise | ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "left out", lambda place: ast.copy_location(ast.Pass(), place)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):

        def sign(place: ast.BinOp) -> ast.AST:
            place.op = ast.Sub() if isinstance(place.op, ast.Add) else ast.Add()
            return place

        yield "other sign", sign
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("any", "all", "min", "max"):
        other_name = {"any": "all", "all": "any", "min": "max", "max": "min"}[node.func.id]

        def rename(place: ast.Call) -> ast.AST:
            place.func = ast.Name(other_name, ast.Load())
            return place

        yield other_name, rename


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self._new if node is self._old and self._new is not node else self.generic_visit(node)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutated code for one module, and nothing for others."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def survives(name: str, mutant: Mutant, tests: list[str], only: str, seconds: int) -> bool:
    """Whether all tests pass with the mutant in place of the module."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            sys.meta_path.insert(0, _Finder(name, compile(mutant.tree, name, "exec")))
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *(["-k", only] if only else []), *tests])
        os._exit(int(code))
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every tenth mutant")
    parser.add_argument("--only", help="one module")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for module in ("cryptography.hazmat.primitives.asymmetric.ed25519", "onnxruntime", "PIL.Image", "scipy.special"):
        importlib.import_module(module)  # once, for all children
    hypothesis.settings.register_profile("mutation", max_examples=20, deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutation")
    lines = ["| module | mutants | killed | survived | time |", "|---|---|---|---|---|"]
    left = []
    for name, (tests, only) in TARGETS.items():
        if arguments.only not in (None, name):
            continue
        found = list(mutants((ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")))
        found = found[::10] if arguments.quick else found
        start = time.perf_counter()
        alive = []
        for mutant in found:
            if survives(name, mutant, [test for test in tests if (ROOT / test).exists()], only, 120):
                alive.append(mutant)
                print(f"survived: {name}:{mutant.line}: {mutant.what}", flush=True)
        lines.append(f"| `{name}` | {len(found)} | {len(found) - len(alive)} | {len(alive)} | {time.perf_counter() - start:.0f} s |")
        print(lines[-1], flush=True)
        left += [f"- `{name}`:{mutant.line}: `{mutant.what}`" for mutant in alive]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("\n".join([*lines, "", "Survivors:", "", *left]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
