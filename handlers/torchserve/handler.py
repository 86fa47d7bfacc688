"""The entry point that TorchServe loads from the archive; the only file that knows its interface.

TorchServe wants exactly one class in this file. Nothing of the archive is imported before every file of it was compared with
``contents.json``, so that a damaged archive is refused with the name of the file.
"""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

CONTENTS = "contents.json"


def check_contents(folder: Path) -> None:
    """Compare each file of an unpacked archive with its hash.

    Raises:
        RuntimeError: a file is missing, changed or extra; names it. (The project's own errors are not loaded yet.)
    """
    expected: dict[str, str] = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
    for name, sha256 in expected.items():
        path = folder / name
        if not path.is_file():
            raise RuntimeError(f"The archive is damaged: {name} is missing.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise RuntimeError(f"The archive is damaged: {name} was changed.")
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        own = name.startswith("MAR-INF/") or "__pycache__" in name  # TorchServe's and Python's
        if path.is_file() and name not in expected and name != CONTENTS and not own:
            raise RuntimeError(f"The archive is damaged: {name} does not belong to it.")


class EludeHandler:
    """Answers TorchServe's batches with ``handlers.service.Service``."""

    def initialize(self, context: Any) -> None:
        """Check the archive and load the bundle; called once a worker."""
        folder = Path(context.system_properties["model_dir"])
        check_contents(folder)
        from handlers.requests import Limits
        from handlers.service import Call, Service

        settings = (context.model_yaml_config or {}).get("elude") or {}
        self._call = Call
        self.service = Service.open(folder / "bundle", Limits.from_json(settings.get("limits") or {}))

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch; each request has its own route, status and body."""
        calls = []
        for i, row in enumerate(data):
            body = row.get("data") if row.get("data") is not None else row.get("body")
            explain, describe = (context.get_request_header(i, name) == "True" for name in ("explain", "describe"))
            calls.append(self._call(body, explain=explain, describe=describe))
        answers = self.service.answer(calls)
        for i, answer in enumerate(answers):
            context.set_response_content_type(i, "application/json")
            if answer.status != HTTPStatus.OK:
                context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, i)
        return [answer.body for answer in answers]
