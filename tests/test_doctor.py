"""``elude doctor`` finds what is in the way and says what to type."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from elude.handlers.errors import UsageError
from elude.handlers.torchserve.machine import free_ports
from elude.model_store import doctor

ROOT = Path(__file__).parent.parent


def only(findings: object) -> doctor.Finding:
    (finding,) = findings  # type: ignore[misc]
    return finding


def test_a_machine_that_runs_these_tests_is_ready() -> None:
    findings = {finding.what: finding for finding in doctor.examine(free_ports(3))}
    assert not [finding for finding in findings.values() if finding.state == "problem"], findings
    assert version("torch") in findings["libraries"].said
    assert "CPU" in findings["ONNX Runtime"].said
    assert "0.12.0" in findings["TorchServe"].said
    assert all(finding.remedy for finding in findings.values() if finding.state != "ok")


def test_the_command_prints_a_table_and_json() -> None:
    run = [sys.executable, "-m", "elude", "doctor"]
    table = subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert table.returncode == 0, table.stdout + table.stderr
    assert "elude[serve]" in table.stdout  # square brackets are no markup
    facts = json.loads(
        subprocess.run([*run, "--json"], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120).stdout
    )
    assert facts["Python"]["state"] == "ok"


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda names: {})
    assert "pip install torch" in only(doctor.libraries()).remedy
    assert only(doctor.runtime()).state == "problem"
    assert {finding.state for finding in doctor.extras()} == {"note"}


def test_two_runtimes_in_one_folder_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda names: dict.fromkeys(names, "1.0"))
    assert "one overwrites the other" in only(doctor.runtime()).said


def test_devices_are_the_processor_or_the_reason_why_the_gpu_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi: no GPU
    assert {finding.state for finding in doctor.devices()} == {"ok"}
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!{sys.executable}\nprint('GPU 0: Imaginary')\n")
    driver.chmod(0o755)
    unused = [finding for finding in doctor.devices() if finding.state == "note"]
    for finding in unused:  # none where torch and ONNX Runtime are made for CUDA
        assert "Imaginary" in finding.said
        assert finding.remedy
    assert len(unused) + len([finding for finding in doctor.devices() if "on the GPU" in finding.said]) == 2


def test_a_taken_port_is_noted() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        finding = only(doctor.listening([port]))
    assert (finding.state, str(port) in finding.said) == ("note", True)
    assert only(doctor.listening(free_ports(1))).state == "ok"


def test_java_that_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_java", lambda: Path(sys.executable))  # knows no -version with one dash
    broken = only(doctor.java())
    assert "does not run" in broken.said

    def none() -> Path:
        raise UsageError("TorchServe needs Java, and there is none.", "Install it.")

    monkeypatch.setattr(doctor, "find_java", none)
    assert (only(doctor.java()).state, only(doctor.java()).remedy) == ("problem", "Install it.")


def test_a_disk_that_is_full_or_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(doctor.disk(tmp_path, least=1)).state == "ok"
    assert only(doctor.disk(tmp_path, least=1 << 60)).state == "note"
    monkeypatch.setattr(doctor, "os", SimpleNamespace(access=lambda *_: False, W_OK=2))
    assert "cannot be written" in only(doctor.disk(tmp_path)).said
