"""The served graph as a subject, run by the very session class that serves it. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elude.handlers.bundle.bundle import MODEL, Bundle
from elude.handlers.bundle.device import providers_of
from elude.handlers.bundle.edits import Edit
from elude.handlers.bundle.external_data import private_model
from elude.handlers.bundle.session import GraphSession
from elude.handlers.errors import EvaluationError
from elude.handlers.images.preprocess import Preprocess
from elude.quality.subjects.devices import onnx_device
from elude.quality.subjects.subject import Images, Outputs, check_outputs


class OnnxSubject:
    """The graph of a bundle or one ONNX file; optionally steered by the same ``edits`` on every image.

    ``sha256`` is of the bytes that the session was made from: nothing else is measured under that name.
    """

    kind = "onnx"

    def __init__(
        self,
        source: str | Path | Bundle,
        preprocess: Preprocess,
        *,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        parameters: int | None = None,
        edits: Sequence[Edit] = (),
        threads: int = 1,
        device: str = "cpu",
        optimise: bool = True,
    ) -> None:
        self.device = onnx_device(device)
        self._providers = providers_of(self.device)
        self._source, self._threads = source if isinstance(source, Bundle) else Path(source), threads
        self._optimise = optimise
        self._session, self.sha256 = self._open()
        self.output_kind = self._session.output_kind
        self._edits = tuple(edits)
        self.preprocess = preprocess
        self.name = name or (MODEL if isinstance(source, Bundle) else Path(source).name)
        self.labels = None if labels is None else tuple(labels)
        self.parameters = parameters

    def _open(self) -> tuple[GraphSession, str]:
        with private_model(self._source) as (path, sha256):
            session = GraphSession(path, providers=self._providers, threads=self._threads, optimise=self._optimise)
            return session, sha256

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the same file."""
        return {key: value for key, value in self.__dict__.items() if key != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._session, sha256 = self._open()
        if sha256 != self.sha256:
            raise EvaluationError(f"{self._source} was changed while it was measured.", "Measure it again.")

    def outputs(self, pixels: Images) -> Outputs:
        edits = [self._edits] * len(pixels) if self._edits else None
        result = self._session.run(self.preprocess.normalise_unit(pixels), edits)
        return check_outputs(result.output, len(pixels), self.name)
