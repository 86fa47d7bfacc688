"""Serve models on uvicorn, in one process or in several that share the address."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from elude.handlers.admission.requirements import Requirements
from elude.handlers.errors import UsageError
from elude.handlers.web.json_log import log_json
from elude.handlers.web.limits import BoundedProtocol
from elude.handlers.web.metrics import SHARED_FOLDER
from elude.handlers.web.models import Models
from elude.handlers.web.plan import Plan
from elude.handlers.web.reload import Reloader
from elude.handlers.web.sharing import COUNTS, Counts
from elude.handlers.web.sources import plan_of
from elude.handlers.web.tracing import tracing

if TYPE_CHECKING:
    from starlette.applications import Starlette

_M_MMAP_THRESHOLD = -3  # malloc.h
TOKEN, _SERVED, _PLAN = "ELUDE_TOKEN", "ELUDE_WEB", "ELUDE_PLAN"

Source = Callable[
    [Path], Plan
]  # gives what is to be served now; gets a private folder that lasts as long as the server


@dataclass(frozen=True)
class WebSettings:
    """How to serve.

    Attributes:
        host: address to listen on.
        port: of inference, health and metrics.
        workers: processes. Each holds the models; a dead or hanging one is replaced.
        batch_size: requests that may share a forward pass.
        reload_s: seconds between two questions for what is to be served now; 0 asks once.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    batch_size: int = 8
    reload_s: float = 0


def serve(
    source: Source, settings: WebSettings, token: str, ready: Callable[[str, Plan], None] = lambda address, plan: None
) -> None:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal; requests that are being answered have seconds to end.

    Args:
        source: see ``Source``.
        settings: see ``WebSettings``.
        token: key that callers must send.
        ready: gets the address once it accepts connections, and what is served there.

    Raises:
        BundleError: a bundle is damaged; found before any worker starts, like the others.
        GateError: it may not be served here.
        UsageError: the port is taken.
    """
    log_json()
    checked(settings)
    tracing()  # what is wrong with it is reported before any worker starts
    with _signals_unwind(), tempfile.TemporaryDirectory(prefix="elude-web-") as private:
        folder = Path(private)
        plan = source(folder)
        plan.write(folder / "plan.json")
        give_memory_back()
        models = Models.load(plan, settings.batch_size)
        with _listener(settings) as listener, _followed(source, folder, plan, settings.reload_s):
            host, port = listener.getsockname()[:2]
            ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", plan)
            if settings.workers == 1:
                _run(_application(models, folder / "plan.json", settings, token), listener)
            else:
                models.close()  # they could be loaded; the workers have their own
                del models
                _run_several(settings, token, folder, listener)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """While inside, SIGTERM and the end of the terminal leave by SystemExit, so that private folders are removed.

    uvicorn stops gracefully at SIGTERM, puts the handler before its own back, and sends itself the signal again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        signal.SIGTERM: lambda *_: sys.exit(0),
        signal.SIGHUP: lambda *_: signal.raise_signal(signal.SIGTERM),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listener(settings: WebSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {settings.host}, port {settings.port}: {error.strerror}.", "Choose another with --port."
        ) from error
    # Connections inherit it. asyncio sets it only for sockets whose protocol is named, which uvicorn's by ``fd`` are
    # not; without it the body of an answer waits up to 40 ms for its headers to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _followed(source: Source, folder: Path, plan: Plan, every_s: float) -> Iterator[None]:
    """Write the plan again whenever the source gives another one."""
    stopped = threading.Event()

    def follow() -> None:
        before = plan
        while not stopped.wait(every_s):
            now = source(folder)
            if now != before:
                now.write(folder / "plan.json")
                before = now

    thread = threading.Thread(target=follow, name="elude-follow", daemon=True)
    if every_s:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if every_s:
            thread.join()


def _run(app: Starlette | str, listener: socket.socket, **options: Any) -> None:
    fixed: dict[str, Any] = {
        "fd": listener.fileno(),
        "http": BoundedProtocol,
        "ws": "none",
        "loop": "asyncio",
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "h11_max_incomplete_event_size": BoundedProtocol.limits.max_head,
        "timeout_graceful_shutdown": int(BoundedProtocol.limits.stop_s),
        "server_header": False,
    }
    uvicorn.run(app, **fixed | options)


def _run_several(settings: WebSettings, token: str, folder: Path, listener: socket.socket) -> None:
    shared = folder / "metrics"
    shared.mkdir()
    os.environ |= {_SERVED: json.dumps(asdict(settings)), _PLAN: str(folder / "plan.json"), TOKEN: token}
    os.environ |= {SHARED_FOLDER: str(shared), COUNTS: str(folder / "connections")}
    Counts.make(folder / "connections", settings.workers)
    Multiprocess.handle_hup = Multiprocess.handle_term  # type: ignore[method-assign]  # uvicorn would restart all workers
    several: dict[str, Any] = {
        "factory": True,
        "workers": settings.workers,
        "loop": "elude.handlers.web.sharing:SharingLoop",
    }
    _run("elude.handlers.web.run:worker", listener, **several)


def worker() -> Starlette:
    """The application of one of several processes, as ``serve`` described it in the environment."""
    log_json()
    give_memory_back()
    settings, path = WebSettings(**json.loads(os.environ[_SERVED])), Path(os.environ[_PLAN])
    return _application(Models.load(Plan.read(path), settings.batch_size), path, settings, os.environ[TOKEN])


def _application(models: Models, path: Path, settings: WebSettings, token: str) -> Starlette:
    from elude.handlers.web.app import application

    reloader = Reloader(models, path) if settings.reload_s else None
    return application(models, token, reloader=reloader, tracing=tracing())


def give_memory_back() -> None:
    """Let large blocks go back to the system when they are freed.

    glibc would keep up to 64 MiB per thread after it saw an image of that size (mallopt(3), M_MMAP_THRESHOLD).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library, which has no such call
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 * 2**20)


def parser() -> argparse.ArgumentParser:
    """What ``python -m elude.handlers.web`` takes."""
    defaults = WebSettings()
    made = argparse.ArgumentParser(description="Serve bundles and archives on uvicorn.")
    made.add_argument("served", nargs="+", metavar="[NAME[@VERSION]=]PATH", help="folder of a bundle, or an archive")
    made.add_argument("--model", default="elude", help="name in URLs of a bundle without one")
    made.add_argument("--version", default="1.0", help="version in URLs of a bundle without one")
    made.add_argument("--label", action="append", default=[], help="NAME/LABEL=VERSION; may be repeated")
    made.add_argument("--host", default=defaults.host, help="address to listen on")
    for name, text in (("port", "port to listen on"), ("workers", "processes"), ("batch_size", "requests per pass")):
        option = f"--{name.replace('_', '-')}"
        made.add_argument(option, default=getattr(defaults, name), type=int, help=text)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve bundles and archives; the key is in the environment variable ``ELUDE_TOKEN``."""
    reader = parser()
    given = reader.parse_args(arguments)
    token = os.environ.get(TOKEN)
    if not token:
        reader.error(f"set {TOKEN} to the key that callers must send")
    names = {"model": given.model, "version": given.version, "labels": given.label}
    source = partial(plan_of, given.served, requirements=Requirements.load(), **names)
    serve(source, WebSettings(given.host, given.port, given.workers, given.batch_size), token)


def checked(settings: WebSettings) -> WebSettings:
    """The settings; UsageError names what cannot be used."""
    if not 0 <= settings.port < 65_536:
        raise UsageError(f"Port {settings.port} cannot be used.", "Use one from 1 to 65535, or 0 for any.")
    if min(settings.workers, settings.batch_size) < 1:
        raise UsageError("The number of workers and the size of batches must be at least 1.")
    return settings
