"""Mutation testing of the gate's decision code: which small faults would no test notice?

Every mutant is one change of one place of the syntax tree: a comparison turned or moved by its
boundary, ``and`` and ``or`` swapped, a
condition held true or false, a constant changed, a statement left out. Each runs in a forked
process in which the functions have the mutated code; the files are not touched, and code that runs
at import only is not mutated. What survives is listed, to be read: is it equivalent, stricter, or a
hole?

Usage: python -m benchmarks.mutation [--only elude.quality.gate.checks] [--lines 77,124] [--seconds 300] [--out FILE]

What each survivor means is written by hand, in docs/benchmarks/mutation.md; this program never touches it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import hypothesis
import pytest

_MOST_CPU = 120  # seconds of CPU after which a mutant that hangs counts as noticed
ROOT = Path(__file__).resolve().parent.parent
GATE = [
    f"tests/quality/test_{name}.py" for name in ("gate", "gate_baseline", "gate_waivers", "verdict", "presets_gate")
]
GATE += ["tests/quality/test_measured_on.py", "tests/quality/test_rules_that_can_fail.py"]
GATE.append("tests/quality/test_class_rule.py")
GATE.append("tests/quality/test_gate_properties.py")  # last, as it takes longest
POLICIES = [
    "tests/quality/test_policy.py",
    "tests/quality/test_rules_that_can_fail.py",
    GATE[0],
    "tests/quality/test_class_rule.py",
]
MADE_POLICIES = [
    f"tests/quality/test_{name}.py" for name in ("policy_init", "class_rule", "policy_tools", "rules_that_can_fail")
]
STORE = [f"tests/model_store/test_{name}.py" for name in ("admission_rules", "signing", "store")]
STORE_TESTS = (
    "rules or unproven or waived or archives or requires or who_and or junk or requirement or signature or policies"
)
TARGETS = {
    "elude.quality.gate.checks": (GATE, ""),
    "elude.quality.gate.judge": (GATE, ""),
    "elude.quality.gate.evidence": (GATE, ""),
    "elude.quality.gate.verdict": (GATE, ""),
    "elude.quality.gate.preset_checks": (GATE, ""),
    "elude.quality.gate.class_checks": (["tests/quality/test_class_rule.py"], ""),
    "elude.quality.statistics.class_drop": (["tests/quality/test_class_rule.py"], ""),
    "elude.quality.gate.policy_init": (
        MADE_POLICIES,
        "policy_init or made or policy_made or asks_nothing or without_answers or unmeasured",
    ),
    "elude.quality.gate.waivers": (["tests/quality/test_policy.py", "tests/quality/test_gate_waivers.py"], "waive"),
    "elude.quality.dimensions.measured_on": (["tests/quality/test_measured_on.py"], ""),
    "elude.quality.policies.policy": (POLICIES, ""),
    "elude.quality.policies.declaration": (POLICIES, ""),
    "elude.handlers.admission.admission": (
        ["tests/quality/test_presets_gate.py", *STORE],
        STORE_TESTS + " or presets or ruling",
    ),
    "elude.handlers.admission.requirements": (STORE[:2], "requires or requirement"),
    "elude.handlers.admission.trust": (STORE[:2], ""),
    "elude.model_store.admission": (STORE, STORE_TESTS),
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
WORDS = {
    "fail": ["pass", "warn"],
    "pass": ["fail"],
    "warn": ["pass", "fail"],
    "bound": ["point"],
    "point": ["bound"],
    "waived": ["fail"],
}


@dataclass(frozen=True)
class Mutant:
    """One change: its line, what it was and became, and the changed tree."""

    line: int
    what: str
    tree: ast.Module


def mutants(source: str) -> Iterator[Mutant]:
    """All mutants of a module's source; texts for people (messages, docstrings) are left alone."""
    tree = ast.parse(source)
    silent = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    silent |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in silent:
            continue
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            place = next(other for i, other in enumerate(ast.walk(changed)) if i == number)
            result = change(place)
            changed = _Replace(place, result).visit(changed)
            yield Mutant(
                getattr(node, "lineno", 0), f"{ast.unparse(node)[:90]}  →  {what}", ast.fix_missing_locations(changed)
            )


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:  # noqa: PLR0912  # one branch per kind of fault
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
    elif isinstance(node, ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield "left out", lambda place: ast.copy_location(ast.Pass(), place)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):

        def sign(place: ast.BinOp) -> ast.AST:
            place.op = ast.Sub() if isinstance(place.op, ast.Add) else ast.Add()
            return place

        yield "other sign", sign
    elif (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("any", "all", "min", "max")
    ):
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


def put_in(name: str, mutant: Mutant) -> None:
    """Give the functions and methods of an imported module the mutant's code: whoever imported them before sees it
    too.
    """
    module = sys.modules[name]
    changed: dict[str, Any] = {**module.__dict__}
    exec(compile(mutant.tree, str(module.__file__), "exec"), changed)
    _swap(vars(module), changed, name)
    for key, value in changed.items():
        if not callable(value) and key.isupper():
            setattr(module, key, value)


def _swap(old: Any, new: Any, module: str) -> None:
    for key, value in list(old.items()):
        other = new.get(key)
        if isinstance(value, property) and isinstance(other, property):
            value, other = value.fget, other.fget  # noqa: PLW2901
        if isinstance(value, classmethod) and isinstance(other, classmethod):
            value, other = value.__func__, other.__func__  # noqa: PLW2901
        if isinstance(value, FunctionType) and isinstance(other, FunctionType) and value.__module__ == module:
            value.__code__, value.__defaults__, value.__kwdefaults__ = (
                other.__code__,
                other.__defaults__,
                other.__kwdefaults__,
            )
        elif isinstance(value, type) and isinstance(other, type) and value.__module__ == module:
            _swap(vars(value), vars(other), module)


class Loop:
    """A plugin of pytest: collects once, then runs the tests once a mutant, each time in a forked process, until the
    first failure.

    Attributes:
        alive: the mutants that no test noticed.
        ran: mutants that were run.
        total: mutants that there are.
    """

    def __init__(self, name: str, lines: frozenset[int] = frozenset(), seconds: float = math.inf) -> None:
        self.name, self.lines, self.seconds = name, lines, seconds
        self.alive: list[Mutant] = []
        self.ran = self.total = 0
        self._base = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        start = _cpu_of_children()
        self._base = True
        if not self._passes(session, None):
            raise pytest.UsageError("the tests fail without any mutant")
        self._base = False
        source = Path(str(sys.modules[self.name].__file__)).read_text(encoding="utf-8")
        chosen = [mutant for mutant in mutants(source) if not self.lines or mutant.line in self.lines]
        self.total = len(chosen)
        if self.seconds < math.inf:  # a fair part of them, the same each time
            random.Random(0).shuffle(chosen)
        for mutant in chosen:
            if _cpu_of_children() - start > self.seconds:
                break
            self.ran += 1
            if self._passes(session, mutant):
                self.alive.append(mutant)
                os.write(2, f"survived: {self.name}:{mutant.line}: {mutant.what}\n".encode())
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._base and report.failed:
            os.write(2, f"failed without any mutant: {report.nodeid}\n".encode())

    def _passes(self, session: pytest.Session, mutant: Mutant | None) -> bool:
        child = os.fork()
        if child == 0:
            signal.setitimer(signal.ITIMER_PROF, _MOST_CPU)  # not of the clock: a busy machine would count as noticed
            try:
                if mutant is not None:
                    put_in(self.name, mutant)
                for item, following in zip(session.items, [*session.items[1:], None], strict=True):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    if session.testsfailed:
                        break
            except BaseException:  # noqa: BLE001  # whatever a mutant raises, it was noticed
                os._exit(1)
            os._exit(int(session.testsfailed > 0))
        _, status = os.waitpid(child, 0)
        return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one module")
    parser.add_argument("--lines", default="", help="only mutants of these lines, comma-separated")
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="of CPU per module: a seeded random part",
    )
    parser.add_argument(
        "--out", type=Path, help="JSON: the counts and the survivors of each module; other modules in it are kept"
    )
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for module in ("cryptography.hazmat.primitives.asymmetric.ed25519", "onnxruntime", "PIL.Image", "scipy.special"):
        importlib.import_module(module)  # once, for all children
    hypothesis.settings.register_profile("mutation", max_examples=20, deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutation")
    print("| module | mutants | run | killed | survived | time |\n|---|---|---|---|---|---|")
    chosen = frozenset(int(line) for line in arguments.lines.split(",") if line)
    for name, (tests, only) in TARGETS.items():
        if arguments.only not in (None, name):
            continue
        importlib.import_module(name)
        loop, start = Loop(name, chosen, arguments.seconds), time.perf_counter()
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=0", *(["-k", only] if only else [])]
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            pytest.main([*options, *tests], plugins=[loop])
        alive = loop.alive
        seconds = time.perf_counter() - start
        counts = (loop.total, loop.ran, loop.ran - len(alive), len(alive))
        print(f"| `{name}` | {' | '.join(map(str, counts))} | {seconds:.0f} s |", flush=True)
        if arguments.out:
            survivors = [{"line": mutant.line, "what": mutant.what} for mutant in alive]
            found = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
            found[name] = dict(zip(("mutants", "run", "killed"), counts, strict=False)) | {"survivors": survivors}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
