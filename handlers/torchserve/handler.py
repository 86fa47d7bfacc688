"""The entry point that TorchServe loads from the archive; the only file that knows its interface.

TorchServe wants exactly one class in this file. Nothing of the archive is imported before every
file of it was compared with ``contents.json``, so that a damaged archive is refused with the name
of the file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import time
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

CONTENTS = "contents.json"
logger = logging.getLogger(__name__)


def check_contents(folder: Path, cached: str | None = None) -> None:
    """Compare each file of an unpacked archive with its hash.

    Args:
        folder: where it was unpacked to.
        cached: the one file that Python may have written there, its compiled form of this module; None for none. Any
            other compiled file would run instead of the source that was compared.

    Raises:
        RuntimeError: a file is missing, changed or extra; names it. (The project's own errors are not loaded yet.)
    """
    listed = parse_contents(_read_contents(folder))
    for name, sha256 in listed.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise RuntimeError(f"The archive is damaged: {name} is missing.")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise RuntimeError(f"The archive is damaged: {name} was changed.")
    expected = {CONTENTS, *listed}
    expected |= {parent.as_posix() for name in listed for parent in PurePosixPath(name).parents}
    for path in folder.rglob("*"):
        if path.relative_to(folder).as_posix() not in expected and not _written_by_python(path, cached):
            name = path.relative_to(folder).as_posix()
            raise RuntimeError(f"The archive is damaged: {name} does not belong to it.")


def _written_by_python(path: Path, cached: str | None) -> bool:
    """Whether it is the compiled form of this module, its folder, or its temporary name while another worker writes
    it.
    """
    if cached is None or path.is_symlink():
        return False
    own = Path(cached)
    if path.is_dir():
        return path == own.parent
    return path.parent == own.parent and (
        path.name == own.name or (path.name.rpartition(".")[0] == own.name and path.suffix[1:].isdigit())
    )


def _read_contents(folder: Path) -> bytes:
    try:
        return (folder / CONTENTS).read_bytes()
    except OSError as error:
        raise RuntimeError(f"The archive is damaged: {CONTENTS} cannot be read: {type(error).__name__}.") from error


def parse_contents(content: bytes) -> dict[str, str]:
    """Name to hash of every file of an archive but ``contents.json``, whose bytes are given.

    Raises:
        RuntimeError: it is not as ``contents_bytes`` writes it, or does not hold its own hash.
    """
    try:
        listed: dict[str, str] = json.loads(content.decode("utf-8"))
        own = listed.pop(CONTENTS)
        whole = own == contents_sha256(listed) and content == contents_bytes(listed)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise RuntimeError(f"The archive is damaged: {CONTENTS} cannot be read: {type(error).__name__}.") from error
    if not whole or not all(isinstance(sha256, str) for sha256 in listed.values()):
        raise RuntimeError(f"The archive is damaged: {CONTENTS} was changed.")
    return listed


def contents_bytes(hashes: dict[str, str]) -> bytes:
    """The file ``contents.json``: the hash of every other file, and its own over these, so that it cannot change
    unnoticed either.
    """
    return (json.dumps(hashes | {CONTENTS: contents_sha256(hashes)}, indent=1, sort_keys=True) + "\n").encode()


def contents_sha256(hashes: dict[str, str]) -> str:
    """The hash that ``contents.json`` holds of itself."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


class EludeHandler:
    """Answers TorchServe's batches with ``elude.handlers.service.Service``."""

    def initialize(self, context: Any) -> None:
        """Check the archive, ask whether it may be served here, and load the bundle; called once per worker."""
        folder = Path(context.system_properties["model_dir"])
        self._cached = None if sys.dont_write_bytecode or __spec__ is None else __spec__.cached
        sys.dont_write_bytecode = True  # what Python would write into the folder is what does not belong there
        check_contents(folder, self._cached)
        from elude.handlers.admission.admission import require_archive
        from elude.handlers.admission.requirements import Requirements
        from elude.handlers.admission.watch import Watch
        from elude.handlers.metrics import Reports
        from elude.handlers.requests.calls import Call
        from elude.handlers.service import Service
        from elude.handlers.settings import read_settings

        settings = read_settings((context.model_yaml_config or {}).get("elude"))
        gpu = context.system_properties.get("gpu_id")
        if settings.device == "cuda" and gpu is not None:
            settings = replace(settings, device=f"cuda:{gpu}")
        self._call, self._log = Call, settings.log
        self._names = [str(context.model_name), str(context.manifest["model"]["modelVersion"])]
        requirements = Requirements.load()
        require_archive((folder / CONTENTS).read_bytes(), requirements)
        self.service = Service.open(folder / "bundle", settings, model=self._names[0], requirements=requirements)
        # Metrics that the server's metrics file names: a stock one names none of ours, and then none is reported.
        metrics = {name: metric for kind in context.metrics.cache.values() for name, metric in kind.items()}
        self._reports = Reports(metrics.get("elude_requests_total"), metrics.get("elude_batch_seconds"), self._names)
        self._busy = threading.Lock()
        if settings.recheck_s:
            self._watch = Watch(self._check, folder, settings.recheck_s, self._busy)

    def _check(self, folder: Path) -> None:
        check_contents(folder, self._cached)
        self.service.admission.require_current()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch; each request has its own route, status and body."""
        begin = time.perf_counter()
        calls = []
        for i, row in enumerate(data):
            explain, describe = (context.get_request_header(i, name) == "True" for name in ("explain", "describe"))
            calls.append(self._call.of_row(row, explain=explain, describe=describe))
        with self._busy:
            answers = self.service.answer(calls)
        for i, answer in enumerate(answers):
            context.set_response_content_type(i, "application/json")
            if answer.status != HTTPStatus.OK:
                context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, i)
        seconds = time.perf_counter() - begin
        self._reports.add(answers, seconds)
        if self._log != "none":
            self._note(answers, seconds, context)
        return [answer.body for answer in answers]

    def _note(self, answers: list[Any], seconds: float, context: Any) -> None:
        """Log lines that hold nothing of a request's content."""
        for i, answer in enumerate(answers):
            if self._log == "all" or answer.status != HTTPStatus.OK:
                line = {
                    "event": "answered",
                    "model": self._names[0],
                    "version": self._names[1],
                    "request": context.get_request_id(i),
                }
                line |= {"operation": answer.operation, "status": answer.status, "bytes": len(answer.body)}
                logger.info(json.dumps(line | {"batch": len(answers), "batch_ms": round(seconds * 1000, 2)}))
