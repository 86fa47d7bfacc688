"""How TorchServe's Java process is started and ended: its command, its environment, and its process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from elude.handlers.admission.requirements import ENVIRONMENT
from elude.handlers.settings import OVERRIDES, Settings
from elude.handlers.torchserve.configuration import CONFIGURATION, ServerSettings
from elude.handlers.torchserve.guard import write_guard

LOGGING = Path(__file__).with_name("log4j2.xml")
_STOP_S = 20  # a server that has not ended by then is killed


def command(java: Path, torchserve: Path, private: Path, log: Path, settings: ServerSettings) -> list[str]:
    """The command line.

    Args:
        java: the program.
        torchserve: folder of the package ``ts``.
        private: folder of this user alone, with ``config.properties`` and ``archives/``.
        log: the log file.
        settings: how to serve.
    """
    words = [str(java), f"-Dmodel_server_home={torchserve.parent}", f"-Djava.io.tmpdir={private}"]
    words += [f"-Dlog4j.configurationFile={LOGGING.as_uri()}", f"-Delude.log={log}"]
    words += [f"-Delude.log.bytes={settings.log_bytes}", "-cp", f"{torchserve}/frontend/*"]
    words += ["org.pytorch.serve.ModelServer", "--python", str(write_guard(private))]
    words += ["-f", str(private / CONFIGURATION), "-s", str(private / "archives"), "-ncs"]
    return [*words, "--enable-model-api"] if settings.model_api else words


def environment(private: Path, settings: ServerSettings) -> dict[str, str]:
    """The environment of Java and, through it, of the workers; writes the files that it names.

    Raises:
        UsageError: the settings over those of the archives cannot be used.
    """
    left_out = ("PYTHONPATH", "TS_CONFIG_FILE")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    variables |= {"TMPDIR": str(private), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    if settings.admission is not None:
        required = private / "admission.json"
        required.write_text(json.dumps(settings.admission.to_json()), encoding="utf-8")
        variables[ENVIRONMENT] = str(required)
    if settings.overrides:
        Settings.from_json(settings.overrides)  # a mistake is reported here, not in a worker's log
        overrides = private / "settings.json"
        overrides.write_text(json.dumps(settings.overrides), encoding="utf-8")
        variables[OVERRIDES] = str(overrides)
    return variables


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and the group that it leads; nothing of it runs when this returns."""
    try:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    finally:
        # Workers are in the group of the server; whatever outlived it ends here.
        _kill_group(process.pid)
        process.wait()


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
