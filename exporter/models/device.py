"""Where torch computes: chosen by name, never exchanged silently."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from elude.handlers.errors import UsageError

AUTO = "auto"


def choose_device(name: str) -> torch.device:
    """The device of a name: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU if there is one.

    Raises:
        UsageError: there is no such device, or torch cannot use it.
    """
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"There is no device {name!r}.", "Use auto, cpu, cuda or cuda:NUMBER.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"The device {name!r} is not supported.", "Use auto, cpu, cuda or cuda:NUMBER.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(
                f"torch cannot use {name!r}: it sees {count} GPUs.",
                "Install a torch for CUDA and check the driver with nvidia-smi, or use --device cpu.",
            )
    return device


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters are; the CPU for one without any."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """While inside, the module's parameters are on ``device``; afterwards they are where they were.

    Products are taken in full float32 precision there, as on the CPU.
    """
    before = device_of(module)
    precise = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    module.to(device)
    try:
        yield
    finally:
        module.to(before)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = precise
