"""A TorchServe of our own: started on loopback with free ports in a folder of its own, ready when it returns, gone
when it stops.

Java is started directly, as ``torchserve`` itself does it, in a process group of its own: the
launcher leaves pid files in the common temporary folder and returns before the server has stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from elude.handlers.admission.requirements import ENVIRONMENT, Requirements
from elude.handlers.errors import EvaluationError, RequestError, UsageError
from elude.handlers.settings import OVERRIDES, Settings
from elude.handlers.torchserve.archives import ArchiveInfo, check_archive, read_archive
from elude.handlers.torchserve.client import Client, ServerError
from elude.handlers.torchserve.guard import write_guard
from elude.handlers.torchserve.machine import find_java, find_torchserve, free_ports
from elude.handlers.torchserve.startup_log import failure, last_lines

_MAX_BODY = 16 * 2**20  # bytes of a request or a response: an image of 6 MiB as base64, and many heat maps
METRICS = Path(__file__).with_name("metrics.yaml")


@dataclass(frozen=True)
class ServerSettings:
    """How to serve.

    Attributes:
        workers: processes for each model.
        batch_size: requests that may share a forward pass.
        batch_delay_ms: how long to wait for a batch to fill.
        token_minutes: how long the keys are valid.
        response_timeout_s: after it a worker counts as dead.
        start_timeout_s: after it starting counts as failed.
        model_api: whether models may be registered while it runs.
        overrides: settings over those of the archives, as ``elude.handlers.settings.Settings.from_json`` reads them.
        admission: what archives must fulfil; by default what ``ELUDE_ADMISSION`` names. Where it
            lists archives, no code of another runs.
    """

    workers: int = 1
    batch_size: int = 8
    batch_delay_ms: int = 2
    token_minutes: float = 60
    response_timeout_s: int = 120
    start_timeout_s: float = 120
    model_api: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    admission: Requirements | None = None


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
        self.archives = [read_archive(path) for path in ([archives] if isinstance(archives, (str, Path)) else archives)]
        self.settings = settings
        self._ports, self._wanted_folder = ports, folder
        self._process: subprocess.Popen[bytes] | None = None
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
        """The log file."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start and wait until every model has a worker that answers.

        Raises:
            UsageError: TorchServe or Java is not installed, or an archive is damaged.
            EvaluationError: it did not get ready; says why and names the log.
        """
        command_start = [str(find_java()), f"-Dmodel_server_home={find_torchserve().parent}"]
        # Not under a caller's folder: the workers' sockets lie in it, whose paths may have 100 characters at most.
        self.folder = (
            Path(self._wanted_folder).resolve()
            if self._wanted_folder
            else Path(tempfile.mkdtemp(prefix="elude-serve-"))
        )
        self._sockets = Path(tempfile.mkdtemp(prefix="elude-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "key_file.json").unlink(missing_ok=True)
        free = free_ports(5)
        self.inference_port, self.management_port, self.metrics_port = self._ports or (free[0], free[1], free[2])
        self._write_configuration(free[3], free[4])
        python = sys.executable if self._requirements().archives is None else str(write_guard(self.folder))
        command = [*command_start, f"-Djava.io.tmpdir={self._sockets}", "-cp", f"{find_torchserve()}/frontend/*"]
        command += ["org.pytorch.serve.ModelServer", "--python", python, "-f", str(self.folder / "config.properties")]
        command += ["-s", str(self.folder / "store"), "-ncs"]
        if self.settings.model_api:
            command.append("--enable-model-api")
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TS_CONFIG_FILE")
        }
        environment |= {"TMPDIR": str(self._sockets), "LOG_LOCATION": str(self.folder / "logs")}
        environment |= {
            "METRICS_LOCATION": str(self.folder / "logs"),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        if self.settings.admission is not None:
            required = self.folder / "admission.json"
            required.write_text(json.dumps(self.settings.admission.to_json()), encoding="utf-8")
            environment[ENVIRONMENT] = str(required)
        if self.settings.overrides:
            Settings.from_json(self.settings.overrides)  # a mistake is told here, not in a worker's log
            overrides = self.folder / "settings.json"
            overrides.write_text(json.dumps(self.settings.overrides), encoding="utf-8")
            environment[OVERRIDES] = str(overrides)
        with ExitStack() as undo:
            undo.callback(self.stop)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.pid = self._process.pid
            self._wait_until_ready(time.monotonic() + self.settings.start_timeout_s)
            undo.pop_all()

    def stop(self) -> None:
        """End it and all its workers; nothing is left running when this returns."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        finally:
            # Workers are in the group of the server; whatever outlived it ends here.
            _kill_group(process.pid)
            process.wait()
            shutil.rmtree(self._sockets, ignore_errors=True)

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
        if _minutes_left(keys[kind]["expiration time"]) < min(1.0, self.settings.token_minutes / 2):
            address = f"http://127.0.0.1:{self.management_port}"
            Client(address, keys["API"]["key"], timeout=10).send(f"/token?type={kind}")
            keys = self._keys()
        return str(keys[kind]["key"])

    def wait(self) -> None:
        """Wait until it ends; EvaluationError if it ends by itself."""
        if self._process is not None:
            status = self._process.wait()
            raise EvaluationError(f"TorchServe ended by itself with status {status}.", f"Its log is {self.log}.")

    def _requirements(self) -> Requirements:
        return Requirements.load() if self.settings.admission is None else self.settings.admission

    def _keys(self) -> dict[str, dict[str, str]]:
        keys: dict[str, dict[str, str]] = json.loads((self.folder / "key_file.json").read_text(encoding="utf-8"))
        return keys

    def _management(self) -> Client:
        return Client(f"http://127.0.0.1:{self.management_port}", self.key("management"), timeout=10)

    def _write_configuration(self, *grpc_ports: int) -> None:
        store = self.folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir()
        models: dict[str, dict[str, dict[str, object]]] = {}
        for archive in self.archives:
            check_archive(archive)
            shutil.copyfile(archive.path, store / archive.file)
            versions = models.setdefault(archive.name, {})
            versions[archive.version] = {
                "defaultVersion": not versions,
                "marName": archive.file,
                "minWorkers": self.settings.workers,
                "maxWorkers": self.settings.workers,
                "batchSize": self.settings.batch_size,
                "maxBatchDelay": self.settings.batch_delay_ms,
                "responseTimeout": self.settings.response_timeout_s,
            }
        addresses = {"inference": self.inference_port, "management": self.management_port, "metrics": self.metrics_port}
        lines = [f"{name}_address=http://127.0.0.1:{port}" for name, port in addresses.items()]
        lines += [
            f"grpc_{name}_port={port}" for name, port in zip(("inference", "management"), grpc_ports, strict=True)
        ]
        lines += [f"grpc_{name}_address=127.0.0.1" for name in ("inference", "management")]
        lines += [f"load_models={','.join(archive.file for archive in self.archives)}", f"models={json.dumps(models)}"]
        lines += [
            f"token_expiration_min={self.settings.token_minutes}",
            "metrics_mode=prometheus",
            f"metrics_config={METRICS}",
        ]
        lines += ["job_queue_size=1000", "enable_envvars_config=false"]
        lines += [f"max_request_size={_MAX_BODY}", f"max_response_size={_MAX_BODY}", f"allowed_urls=file://{store}/.*"]
        (self.folder / "config.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _wait_until_ready(self, deadline: float) -> None:
        waiting = list(self.archives)
        while waiting:
            ended = self._process is not None and self._process.poll() is not None  # asked first: then the log is whole
            log = self.log.read_text(encoding="utf-8", errors="replace")
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
    """Start a server, call ``ready``, and serve until Ctrl-C or SIGTERM, which end it with all its workers.

    For the main thread of a program that does nothing else.

    Raises:
        EvaluationError: it did not start, or ended by itself.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # SIGINT too: a shell starts its background jobs with it ignored.
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with server:
            ready(server)
            server.wait()
    except KeyboardInterrupt:
        return  # asked for: the context manager has stopped it
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _minutes_left(instant: str) -> float:
    moment = datetime.fromisoformat(instant[:19]).replace(tzinfo=UTC)  # Java gives nanoseconds and a Z
    return (moment - datetime.now(UTC)).total_seconds() / 60


def _kill_group(group: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError:  # only zombies are left, which init collects
            return
        time.sleep(0.02)
