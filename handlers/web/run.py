"""Serve one bundle on uvicorn, in one process or in several that share the address."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from elude.handlers.admission.requirements import Requirements
from elude.handlers.errors import GateError, UsageError
from elude.handlers.service import Service
from elude.handlers.settings import read_settings
from elude.handlers.web.limits import BoundedProtocol
from elude.handlers.web.metrics import SHARED_FOLDER

if TYPE_CHECKING:
    from starlette.applications import Starlette

_M_MMAP_THRESHOLD = -3  # malloc.h
TOKEN, _SERVED = "ELUDE_TOKEN", "ELUDE_WEB"


@dataclass(frozen=True)
class WebSettings:
    """How to serve a bundle.

    Attributes:
        bundle: its folder.
        model: name in URLs.
        version: in URLs.
        host: address to listen on.
        port: of inference, health and metrics.
        workers: processes. Each holds the model; a dead or hanging one is replaced.
        batch_size: requests that may share a forward pass.
    """

    bundle: str
    model: str = "elude"
    version: str = "1.0"
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    batch_size: int = 8


def serve(settings: WebSettings, token: str, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that are being answered then have some seconds to end.

    Args:
        settings: see ``WebSettings``.
        token: key that callers must send.
        ready: gets the address once it accepts connections.

    Raises:
        BundleError: the bundle is damaged; found before any worker starts, like the others.
        GateError: it may not be served here.
        UsageError: the port is taken.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    service = open_service(settings)
    with _listener(settings) as listener:
        host, port = listener.getsockname()[:2]
        ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        _run(settings, service, token, listener)


def _listener(settings: WebSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {settings.host}, port {settings.port}: {error.strerror}.", "Choose another with --port."
        ) from error


def _run(settings: WebSettings, service: Service, token: str, listener: socket.socket) -> None:
    options: dict[str, Any] = {
        "fd": listener.fileno(),
        "http": BoundedProtocol,
        "ws": "none",
        "log_level": "warning",
        "access_log": False,
        "h11_max_incomplete_event_size": BoundedProtocol.limits.max_head,
        "timeout_graceful_shutdown": int(BoundedProtocol.limits.stop_s),
        "server_header": False,
    }
    if settings.workers == 1:
        from elude.handlers.web.app import application

        app = application(service, token, version=settings.version, batch_size=settings.batch_size)
        uvicorn.run(app, **options)
        return
    with tempfile.TemporaryDirectory(prefix="elude-metrics-") as folder:
        os.environ |= {_SERVED: json.dumps(asdict(settings)), TOKEN: token, SHARED_FOLDER: folder}
        uvicorn.run("elude.handlers.web.run:worker", factory=True, workers=settings.workers, **options)


def worker() -> Starlette:
    """The application of one of several processes, as ``serve`` described it in the environment."""
    from elude.handlers.web.app import application

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = WebSettings(**json.loads(os.environ[_SERVED]))
    token = os.environ[TOKEN]
    return application(open_service(settings), token, version=settings.version, batch_size=settings.batch_size)


def _give_memory_back() -> None:
    """Let large blocks go back to the system when they are freed.

    glibc would keep up to 64 MiB per thread after it saw an image of that size (mallopt(3), M_MMAP_THRESHOLD).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library, which has no such call
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 * 2**20)


def open_service(settings: WebSettings) -> Service:
    """The service, with settings and requirements from ``ELUDE_SETTINGS`` and ``ELUDE_ADMISSION``."""
    _give_memory_back()
    requirements = Requirements.load()
    if requirements.archives is not None:
        raise GateError(
            "This server may load listed archives only, and was given a bundle.",
            "Require a verdict or a signature instead.",
        )
    return Service.open(settings.bundle, read_settings({}), model=settings.model, requirements=requirements)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one bundle; the key is in the environment variable ``ELUDE_TOKEN``."""
    defaults = WebSettings("")
    parser = argparse.ArgumentParser(description="Serve a bundle on uvicorn.")
    parser.add_argument("bundle", help="folder of the bundle")
    for name, text in (("model", "name in URLs"), ("version", "version in URLs"), ("host", "address to listen on")):
        parser.add_argument(f"--{name}", default=getattr(defaults, name), help=text)
    for name, text in (("port", "port to listen on"), ("workers", "processes"), ("batch_size", "requests per pass")):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, default=getattr(defaults, name), type=int, help=text)
    given = parser.parse_args(arguments)
    token = os.environ.get(TOKEN)
    if not token:
        parser.error(f"set {TOKEN} to the key that callers must send")
    serve(checked(WebSettings(**vars(given))), token)


def checked(settings: WebSettings) -> WebSettings:
    """The settings; UsageError names what cannot be used."""
    if not 0 <= settings.port < 65_536:
        raise UsageError(f"Port {settings.port} cannot be used.", "Use one from 1 to 65535, or 0 for any.")
    if min(settings.workers, settings.batch_size) < 1:
        raise UsageError("The number of workers and the size of batches must be at least 1.")
    if not Path(settings.bundle).is_dir():
        raise UsageError(f"There is no bundle {settings.bundle!r}.", "Make one with 'elude export'.")
    return settings
