"""The command line: what a user types wrong ends in one clear message and the documented exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer

import elude
from elude.cli import GROUPS, app
from elude.cli.export_commands import what_more_would_buy
from elude.cli.terminal import show
from elude.handlers.bundle.bundle import Bundle
from elude.handlers.requests.edit_text import parse_edit

ROOT = Path(__file__).parent.parent
EVALUATION = ROOT / "exporter" / "embedded" / "evaluation.tar"
FEW = ("--max-images", "300", "--tokens", "4")


def policy_with(least_accuracy: float, path: Path) -> Path:
    """A policy that asks for accuracy alone, and for the rewrite to be lossless."""
    claims = "[lossless.claims]\nsums = 1e-3\nrewrite = 0.0\nruntime = 1e-3\n"
    claims += "[lossless.disentangled]\ndefault = 1e-6\n[lossless.served]\ndefault = 0.01\n"
    path.write_text(f'schema_version = 1\nname = "accuracy"\n[dimensions.accuracy]\nmin = {least_accuracy}\n{claims}')
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "elude", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=240)


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Exit code ``code``, one line of error, no traceback, and all ``words`` in it."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "bundle"
    done = run("export", "embedded", *FEW, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["max |Δ output| torch vs original"] == 0
    return out


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.mark.slow
def test_an_export_of_few_images_says_what_more_would_buy(bundle: Path) -> None:
    assert "300 images" in (what_more_would_buy(Bundle.open(bundle)) or "")
    enough = {"settings": {"probing_images": 5_000, "tokens_per_image": 8}}
    assert what_more_would_buy(SimpleNamespace(json=lambda _: enough)) is None  # type: ignore[arg-type]


def test_help_names_every_command() -> None:
    done = run("--help")
    for command in ("export", "evaluate", "gate", "report", "package", "admit", "serve", "call", "demo"):
        assert command in done.stdout


@pytest.mark.slow
def test_the_way_to_the_store(copy: Path, tmp_path: Path) -> None:
    assert run("evaluate", copy, "--quick", "--budget", "200").returncode == 0
    policy = policy_with(0.5, tmp_path / "policy.toml")
    policy.write_text(policy.read_text() + "[suite]\nbudget = 200\n")
    done = run("gate", copy, "--policy", policy, "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "j.xml").stat().st_size
    assert "passed" in (tmp_path / "m.md").read_text()
    assert run("report", copy).returncode == 0
    done = run("admit", copy, "--store", tmp_path / "store", "--who", "tester")
    assert done.returncode == 0, done.stderr
    assert "embedded/1" in done.stdout


@pytest.mark.slow
def test_a_gate_failure_exits_1_and_says_why(copy: Path, tmp_path: Path) -> None:
    assert run("evaluate", copy, "--dimensions", "accuracy,params_m").returncode == 0
    done = run("gate", copy, "--policy", policy_with(0.9999, tmp_path / "policy.toml"))
    assert done.returncode == 1
    assert "accuracy" in done.stdout
    assert "FAIL" in done.stdout
    refused(run("admit", copy, "--store", tmp_path / "store", "--who", "tester"), 1, "verdict")
    assert not (tmp_path / "store" / "versions").exists()


@pytest.mark.parametrize("name", ["model.onnx", "labels.json", "disentangled.safetensors", "catalogue.sqlite"])
def test_a_tampered_bundle_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).chmod(0o644)
    (copy / name).write_bytes(content)
    refused(run("evaluate", copy), 2, name)
    refused(run("package", copy, "--out", copy.parent / "x.mar"), 2, name)
    assert not (copy.parent / "x.mar").exists()


def test_a_tampered_bundle_fails_the_gate(copy: Path) -> None:
    (copy / "labels.json").chmod(0o644)
    (copy / "labels.json").write_text("[]")
    refused(run("gate", copy), 1, "labels.json")


def test_a_missing_image_folder(tmp_path: Path) -> None:
    refused(run("export", "embedded", "--images", tmp_path / "nowhere", "--out", tmp_path / "b"), 2, "nowhere")
    assert not (tmp_path / "b").exists()


def test_a_wrong_layer_name(tmp_path: Path) -> None:
    refused(run("export", "embedded", "--layers", "blocks.99.mlp.fc2", "--out", tmp_path / "b"), 2, "blocks.99.mlp.fc2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_unreadable_image(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "bag"
    folder.mkdir(parents=True)
    names = ["broken.png", "damaged.png", "short.png"]
    for name in names:
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    strict = run("export", "embedded", "--images", folder.parent, "--out", tmp_path / "b", "--strict", "--tokens", 100)
    refused(strict, 2, *names)  # all at once
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_a_split_that_does_not_sum_leaves_no_bundle(tmp_path: Path) -> None:
    """The weights in the file are made not to sum: verification must stop the export."""
    code = """
import elude.cli
import elude.exporter.graph.sub_units as sub_units
from elude.exporter.graph.ops import scalar
right = sub_units.rows
sub_units.rows = lambda ops, *arguments: ops("Mul", right(ops, *arguments), ops.constant(scalar(1.01)))
elude.cli.main()
"""
    arguments = ["export", "embedded", *FEW, "--out", str(tmp_path / "b")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=240
    )
    refused(done, 1, "sum")
    assert [path.name for path in tmp_path.iterdir()] == ["b.partial"]  # what was collected, to resume from


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("export", "no_such_model", "--images", str(EVALUATION), "--out", "x"), "no_such_model"),
        (("call", "guess"), "guess"),
        (("call", "predict", "no.png"), "no.png"),
        (("call", "steer", str(EVALUATION), "--edit", "a/u1.s1=scale:much"), "much"),
        (("evaluate", "no_bundle"), "no_bundle"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], word: str) -> None:
    refused(run(*arguments), 2, word)


def test_a_missing_candidate_is_not_a_failed_one(tmp_path: Path) -> None:
    assert run("gate", tmp_path / "nothing").returncode == 3


def test_edits_are_read() -> None:
    assert parse_edit("l/u1.s2=scale:-4@10") == {"id": "l/u1.s2", "action": "scale", "value": -4.0, "patches": 10}
    assert parse_edit("l/u1.s2=ablate") == {"id": "l/u1.s2", "action": "ablate"}


def test_the_public_api_loads_on_demand(bundle: Path) -> None:
    assert elude.Bundle is Bundle
    assert elude.quba_score is not None
    with pytest.raises(AttributeError):
        elude.nothing  # noqa: B018
    session = elude.GraphSession(bundle / "model.onnx")
    assert session.run(np.zeros((1, 3, 28, 28), np.float32)).output.shape == (1, 10)


def test_what_is_mistyped_is_found_before_torch_is_loaded(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "b")]
    for command in (["embedded", "--images", str(tmp_path / "none"), *out], ["embeddedd", *out]):
        code = f"import sys; from elude.cli import app; sys.argv[1:] = {['export', *command]!r}\ntry:\n    app()\n"
        code += "except Exception as error:\n    print(type(error).__name__, 'torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["UsageError", "False"], done.stderr


def test_every_command_is_in_a_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("title", ["Gate: PASSED, policy release", "a title " * 15])
def test_a_title_that_is_wider_than_its_table_stays_on_one_line(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(title, {"all checks": "44 pass"})
    assert title.strip() in [line.strip() for line in capsys.readouterr().out.splitlines()]
