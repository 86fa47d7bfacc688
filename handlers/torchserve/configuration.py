"""TorchServe's configuration file, which decides what it loads and where it listens; nothing in it is an archive's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elude.handlers.admission.requirements import Requirements
from elude.handlers.torchserve.archives import ArchiveInfo

CONFIGURATION = "config.properties"
METRICS = Path(__file__).with_name("metrics.yaml")
_MAX_BODY = 16 * 2**20  # bytes of a request or a response: an image of 6 MiB as base64, and many heat maps


@dataclass(frozen=True)
class ServerSettings:
    """How to serve.

    Attributes:
        workers: processes per model.
        batch_size: requests that may share a forward pass.
        batch_delay_ms: how long to wait for a batch to fill, at least 1. Who comes in that time waits for the dearest
            image of the batch.
        token_minutes: how long the keys are valid.
        response_timeout_s: after it a worker counts as dead.
        start_timeout_s: after it starting counts as failed.
        log_bytes: size at which the log is started anew; four older parts are kept.
        model_api: whether models may be registered while it runs.
        overrides: settings over those of the archives, as ``elude.handlers.settings.Settings.from_json`` reads them.
        admission: what archives must fulfil; by default what ``ELUDE_ADMISSION`` names. Where it
            lists archives, no code of another runs.
    """

    workers: int = 1
    batch_size: int = 8
    batch_delay_ms: int = 1
    token_minutes: float = 60
    response_timeout_s: int = 120
    start_timeout_s: float = 120
    log_bytes: int = 10_000_000
    model_api: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    admission: Requirements | None = None


def configuration(
    archives: Sequence[ArchiveInfo],
    ports: Mapping[str, int],
    settings: ServerSettings,
) -> bytes:
    """The content of ``config.properties``.

    Args:
        archives: the checked copies, all in one folder.
        ports: of ``inference``, ``management``, ``metrics``, ``grpc_inference`` and ``grpc_management``.
        settings: how to serve.
    """
    model_settings: dict[str, object] = {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": max(1, settings.batch_delay_ms),  # 0 would mean 100
        "responseTimeout": settings.response_timeout_s,
    }
    models: dict[str, dict[str, dict[str, object]]] = {}
    for archive in archives:
        versions = models.setdefault(archive.name, {})
        first: dict[str, object] = {"defaultVersion": not versions, "marName": archive.path.name}
        versions[archive.version] = first | model_settings
    values: dict[str, object] = {}
    for name, port in ports.items():
        if name.startswith("grpc_"):
            values |= {f"{name}_port": port, f"{name}_address": "127.0.0.1"}
        else:
            values[f"{name}_address"] = f"http://127.0.0.1:{port}"
    files = [archive.path.name for archive in archives]
    values |= {
        "load_models": ",".join(files),
        "models": json.dumps(models),
        "token_expiration_min": settings.token_minutes,
        "metrics_mode": "prometheus",
        "metrics_config": METRICS,
        "job_queue_size": 1000,
        "enable_envvars_config": "false",
        "decode_input_request": "false",  # bodies come as bytes, which the handler reads within its limits
        "install_py_dep_per_model": "false",
        "max_request_size": _MAX_BODY,
        "max_response_size": _MAX_BODY,
        "allowed_urls": ",".join(_pattern(archive.path) for archive in archives),
    }
    return "".join(f"{name}={_escaped(str(value))}\n" for name, value in values.items()).encode("ascii")


def _pattern(path: Path) -> str:
    """The regular expression of exactly this file's URL.

    Registration decodes ``%2e``, so that a pattern that allows a whole folder allows every file of the machine.
    What has a meaning in the list, in the expression or in the file is any one character.
    """
    return "file://" + re.sub(r"[^A-Za-z0-9_/-]", ".", str(path))


def _escaped(value: str) -> str:
    """As Java's ``Properties`` reads it: one line, Latin-1, backslashes doubled."""
    plain = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return "".join(char if " " <= char <= "~" else _unicode(char) for char in plain)


def _unicode(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
