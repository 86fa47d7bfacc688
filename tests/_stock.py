"""A TorchServe as anyone starts it: a folder of archives, all loaded, none of this project's launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elude.handlers.torchserve.machine import find_java, find_torchserve, free_ports


@dataclass(frozen=True)
class Stock:
    """A running one: its log, and the port of inference."""

    log_file: Path
    port: int

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait(self, ready: Callable[[], bool], seconds: float = 280) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, self.log()[-4000:]
            time.sleep(0.2)

    def ask(self, model: str, body: bytes, kind: str = "application/octet-stream") -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/predictions/{model}", body, {"Content-Type": kind}
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError:  # it does not listen yet, or the model has no worker
            return 0, None


@contextmanager
def stock(folder: Path, environment: Mapping[str, str] | None = None, python: str = sys.executable) -> Iterator[Stock]:
    """Serve every archive of ``folder/models`` from the first moment."""
    ports = free_ports(5)
    names = ("inference", "management", "metrics")
    lines = [f"{name}_address=http://127.0.0.1:{port}" for name, port in zip(names, ports[:3], strict=True)]
    lines += [f"grpc_{name}_port={port}" for name, port in zip(names[:2], ports[3:], strict=True)]
    lines += ["disable_token_authorization=true", "load_models=all", "default_workers_per_model=1"]
    (folder / "config.properties").write_text("\n".join(lines) + "\n")
    command = [str(find_java()), f"-Dmodel_server_home={find_torchserve().parent}", f"-Djava.io.tmpdir={folder}"]
    command += ["-cp", f"{find_torchserve()}/frontend/*", "org.pytorch.serve.ModelServer", "--python", python]
    command += ["-f", str(folder / "config.properties"), "-s", str(folder / "models"), "-ncs"]
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TS_CONFIG_FILE")}
    env |= {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", **(environment or {})}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield Stock(folder / "log", ports[0])
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
