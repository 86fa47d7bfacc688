"""The served graph as a subject, run by the very session class that serves it. Loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elude.handlers.bundle.session import GraphSession
from elude.handlers.images.preprocess import Preprocess
from elude.handlers.requests.edits import Edit
from elude.quality.subjects.subject import Images, Outputs, check_outputs


class OnnxSubject:
    """One ONNX file; optionally steered by the same ``edits`` on every image."""

    kind = "onnx"

    def __init__(
        self,
        path: str | Path,
        preprocess: Preprocess,
        *,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        parameters: int | None = None,
        edits: Sequence[Edit] = (),
        threads: int = 1,
    ) -> None:
        self._path, self._threads = Path(path), threads
        self._session = GraphSession(path, threads=threads)
        self._edits = tuple(edits)
        self.preprocess = preprocess
        self.name = name or Path(path).name
        self.labels = None if labels is None else tuple(labels)
        self.parameters = parameters
        with Path(path).open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the same file."""
        return {key: value for key, value in self.__dict__.items() if key != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._session = GraphSession(self._path, threads=self._threads)

    def outputs(self, pixels: Images) -> Outputs:
        edits = [self._edits] * len(pixels) if self._edits else None
        result = self._session.run(self.preprocess.normalise_unit(pixels), edits)
        return check_outputs(result.output, len(pixels), self.name)
