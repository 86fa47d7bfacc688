"""Where models run: the names of ``--device``, checked before anything is loaded."""

from __future__ import annotations

import os
import re

import onnxruntime

from elude.handlers.bundle.device import CUDA
from elude.handlers.errors import UsageError

CPU, AUTO = "cpu", "auto"
PRECISIONS = ("float32", "bfloat16", "float16")
_NAMES = re.compile(r"^(auto|cpu|mps|cuda(:\d+)?)$")
_MOST_WORKERS = 8
AT_ONCE = {"cuda": 8, "mps": 4}  # how many times more images pass at once there


def resolve(device: str) -> str:
    """The device's name for torch; ``auto`` is the first CUDA device, else Apple's, else the processor.

    Raises:
        UsageError: no such name, or there is no such device.
    """
    if _NAMES.match(device) is None:
        raise UsageError(f"{device!r} is not a device.", "Use auto, cpu, cuda, cuda:N or mps.")
    if device == CPU:
        return CPU
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == AUTO:
        return next((name for name, usable in there.items() if usable), CPU)
    kind, _, number = device.partition(":")
    if not there[kind]:
        raise UsageError(f"There is no {kind} device here, or this torch cannot use it.", "Use --device cpu, or auto.")
    if number and int(number) >= torch.cuda.device_count():
        raise UsageError(f"There is no {device}: {torch.cuda.device_count()} are there.", "They are numbered from 0.")
    return device


def onnx_device(device: str) -> str:
    """Where ONNX files run when torch runs on ``device``: there, if ONNX Runtime has CUDA, else on the processor."""
    usable = CUDA in onnxruntime.get_available_providers()
    return device if device.startswith("cuda") and usable else CPU


def at_once(device: str) -> int:
    """How many times more images pass at once than on the processor."""
    return AT_ONCE.get(device.partition(":")[0], 1)


def corrupting_workers(device: str) -> int:
    """How many processes corrupt images: none beside a model that needs the processor itself."""
    return 0 if device == CPU else min(_MOST_WORKERS, max(1, (os.cpu_count() or 1) - 1))
