"""A TorchServe of our own: started on loopback with free ports in a folder of its own, ready when it returns, gone
when it stops.

Java is started directly, as ``torchserve`` itself does it, in a process group of its own: the
launcher leaves pid files in the common temporary folder and returns before the server has stopped.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType

from elude.handlers.admission.requirements import Requirements
from elude.handlers.errors import EvaluationError, RequestError, UsageError
from elude.handlers.torchserve.archives import ArchiveInfo, read_archive, require_distinct
from elude.handlers.torchserve.check_archive import take_in
from elude.handlers.torchserve.client import Client, ServerError
from elude.handlers.torchserve.configuration import CONFIGURATION, ServerSettings, configuration
from elude.handlers.torchserve.launch import command, end_group, environment
from elude.handlers.torchserve.machine import find_java, find_torchserve, free_ports, require_free, short_folder
from elude.handlers.torchserve.startup_log import failure, last_lines

__all__ = ["Server", "ServerSettings", "serve"]


class Server:
    """Runs TorchServe with archives; a context manager.

    Args:
        archives: one ``.mar`` or several with different names or versions.
        settings: see ``ServerSettings``.
        ports: of inference, management and metrics; free ones by default.
        folder: where its configuration, keys and logs lie; by default a temporary folder, removed after a clean stop.
    """

    def __init__(
        self,
        archives: Path | str | Sequence[Path | str],
        settings: ServerSettings = ServerSettings(),
        *,
        ports: tuple[int, int, int] | None = None,
        folder: Path | str | None = None,
    ) -> None:
        self._given = [read_archive(path) for path in ([archives] if isinstance(archives, (str, Path)) else archives)]
        require_distinct(self._given)
        self.archives = self._given  # once started, the copies that are served
        self.settings = settings
        self._ports, self._wanted_folder = ports, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._leftovers = ExitStack()
        self.pid = 0  # of Java, which leads the process group of all workers

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind in (None, KeyboardInterrupt) and self._wanted_folder is None:  # after an error the log is kept
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        """The log file; older parts of it are ``server.log.1`` to ``.4``."""
        return self.folder / "server.log"

    @property
    def key_expires(self) -> datetime:
        """When the current inference key expires, UTC."""
        return _instant(self._keys()["inference"]["expiration time"])

    def start(self) -> None:
        """Start and wait until every model has a worker that answers.

        Raises:
            UsageError: TorchServe or Java is not installed, or an archive is not as it should be.
            GateError: an archive is none of those that may be loaded.
            EvaluationError: it did not get ready; says why and names the log.
        """
        java, torchserve = find_java(), find_torchserve()
        with ExitStack() as undo:
            undo.callback(self.stop)
            addresses = self._choose_ports()
            private = self._private_folder()
            self._take_in(private / "archives")
            self._prepare(private, addresses)
            with self._console.open("wb") as console:
                self._process = subprocess.Popen(
                    command(java, torchserve, private, self.log, self.settings),
                    cwd=self.folder,
                    env=environment(private, self.settings),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    start_new_session=True,
                )
            self.pid = self._process.pid
            self._wait_until_ready(time.monotonic() + self.settings.start_timeout_s)
            undo.pop_all()

    def stop(self) -> None:
        """End it and all its workers; nothing is left running when this returns, and of its files only the log."""
        process, self._process = self._process, None
        with self._leftovers:
            if process is not None:
                end_group(process)

    def client(
        self, model: str | None = None, version: str | None = None, *, timeout: float = 30, retries: int = 2
    ) -> Client:
        """A client of one model, by default of the first archive's."""
        url = f"http://127.0.0.1:{self.inference_port}"
        token = lambda: self.key("inference")  # noqa: E731  # asked for again when a key has expired
        return Client(
            url, token, model=model or self.archives[0].name, version=version, timeout=timeout, retries=retries
        )

    def describe(self, model: str | None = None) -> dict[str, object]:
        """What is served, by the management address."""
        name = model or self.archives[0].name
        answer: list[dict[str, object]] = json.loads(self._management().send(f"/models/{name}?customized=true"))
        metadata = answer[0]["customizedMetadata"]
        found: dict[str, object] = json.loads(metadata) if isinstance(metadata, str) else dict(metadata)  # type: ignore[call-overload]
        return found

    def key(self, kind: str) -> str:
        """The current key for ``inference`` or ``management``, a new one if it has less than a minute to live."""
        keys = self._keys()
        left = (_instant(keys[kind]["expiration time"]) - datetime.now(UTC)).total_seconds() / 60
        if left < min(1.0, self.settings.token_minutes / 2):
            address = f"http://127.0.0.1:{self.management_port}"
            Client(address, keys["API"]["key"], timeout=10).send(f"/token?type={kind}")
            keys = self._keys()
        return str(keys[kind]["key"])

    def wait(self) -> None:
        """Wait until it ends; EvaluationError if it ends by itself."""
        if self._process is not None:
            status = self._process.wait()
            raise EvaluationError(f"TorchServe ended by itself with status {status}.", f"Its log is {self.log}.")

    @property
    def _console(self) -> Path:
        """What Java prints before it logs, or when it cannot start at all."""
        return self.folder / "java.log"

    def _requirements(self) -> Requirements:
        return Requirements.load() if self.settings.admission is None else self.settings.admission

    def _keys(self) -> dict[str, dict[str, str]]:
        keys: dict[str, dict[str, str]] = json.loads((self.folder / "key_file.json").read_text(encoding="utf-8"))
        return keys

    def _management(self) -> Client:
        return Client(f"http://127.0.0.1:{self.management_port}", self.key("management"), timeout=10)

    def _private_folder(self) -> Path:
        """A folder that only this user can enter, gone when the server stops: archives, sockets and configuration."""
        folder = short_folder("elude-")
        self._leftovers.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _choose_ports(self) -> dict[str, int]:
        """Of inference, management and metrics, and of gRPC, which nobody uses and cannot be left out."""
        free = free_ports(5)
        self.inference_port, self.management_port, self.metrics_port = self._ports or (free[0], free[1], free[2])
        addresses = {"inference": self.inference_port, "management": self.management_port, "metrics": self.metrics_port}
        require_free(addresses)
        return addresses | {"grpc_inference": free[3], "grpc_management": free[4]}

    def _take_in(self, folder: Path) -> None:
        """Copy the archives, checking every byte: TorchServe gets these copies, under names of ours, and nothing
        else.
        """
        folder.mkdir()
        requirements = self._requirements()
        self.archives = [
            take_in(archive.path, folder / f"{number}.mar", requirements) for number, archive in enumerate(self._given)
        ]
        require_distinct(self.archives)

    def _prepare(self, private: Path, ports: Mapping[str, int]) -> None:
        """The folder of the log and the keys, and TorchServe's configuration."""
        self.folder = Path(self._wanted_folder or tempfile.mkdtemp(prefix="elude-serve-")).resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for log in (self.log, self._console):
            log.write_bytes(b"")
        keys = self.folder / "key_file.json"
        keys.unlink(missing_ok=True)
        self._leftovers.callback(keys.unlink, missing_ok=True)
        content = configuration(self.archives, ports, self.settings)
        (private / CONFIGURATION).write_bytes(content)

    def _wait_until_ready(self, deadline: float) -> None:
        waiting = list(self.archives)
        while waiting:
            ended = self._process is not None and self._process.poll() is not None  # asked first: then the log is whole
            texts = [path.read_text(encoding="utf-8", errors="replace") for path in (self.log, self._console)]
            log = "".join(texts)
            reason = failure(log) or (last_lines(log) if ended else None)
            if reason is not None:
                raise EvaluationError(f"TorchServe did not start: {reason}", f"Its log is {self.log}.")
            if time.monotonic() > deadline:
                raise EvaluationError(
                    f"TorchServe was not ready after {self.settings.start_timeout_s} s.", f"Its log is {self.log}."
                )
            if self._ready(waiting[0]):
                waiting.pop(0)
            else:
                time.sleep(0.05)

    def _ready(self, archive: ArchiveInfo) -> bool:
        try:
            status = json.loads(self._management().send(f"/models/{archive.name}/{archive.version}"))
        except (OSError, ValueError, KeyError, UsageError, RequestError, ServerError):
            return False  # no key file, no listener or no model yet
        workers = status[0]["workers"]
        return len(workers) >= self.settings.workers and all(worker["status"] == "READY" for worker in workers)


def serve(server: Server, ready: Callable[[Server], None]) -> None:
    """Start a server, call ``ready``, and serve until Ctrl-C, SIGTERM or the end of the terminal (SIGHUP), which end
    it with all its workers.

    For the main thread of a program that does nothing else. Under ``nohup`` it outlives the terminal.

    Raises:
        EvaluationError: it did not start, or ended by itself.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a shell starts its background jobs with it ignored.
    ends = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        ends.append(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in ends}
    try:
        with server:
            ready(server)
            server.wait()
    except KeyboardInterrupt:
        return  # asked for: the context manager has stopped it
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)  # Java gives nanoseconds and a Z
