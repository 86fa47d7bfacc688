"""Where ONNX Runtime computes: a device by name, as execution providers. Never exchanged silently."""

from __future__ import annotations

import re
from typing import Any

import onnxruntime as ort

from elude.handlers.errors import UsageError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
_FORMS = "Use auto, cpu, cuda or cuda:NUMBER."


def check_device(name: object) -> str:
    """The name itself.

    Raises:
        UsageError: it is not that of a device.
    """
    if not isinstance(name, str) or _DEVICE.fullmatch(name) is None:
        raise UsageError(f"There is no device {name!r}.", _FORMS)
    return name


def providers_of(device: str) -> tuple[str, ...]:
    """The providers of a device, as ``GraphSession`` takes them: ``auto`` is CUDA where the installed runtime has it.

    Raises:
        UsageError: it is not the name of a device.
    """
    check_device(device)
    if device == "auto":
        return (CUDA,) if CUDA in ort.get_available_providers() else (CPU,)
    return (CPU,) if device == "cpu" else (device.replace("cuda", CUDA),)


def provider_options(provider: str) -> tuple[str, dict[str, Any]]:
    """Name and options of ``NAME`` or ``NAME:NUMBER``; on CUDA products are in full float32 precision."""
    name, _, number = provider.partition(":")
    return name, {"device_id": number or "0", "use_tf32": "0"} if name == CUDA else {}
