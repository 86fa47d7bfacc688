"""An ONNX file of somebody else's making as a subject: the original of a bundle that was made from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from elude.exporter.onnx_files.read_file import OnnxFile
from elude.exporter.onnx_files.run import Session
from elude.quality.subjects.subject import Images, Outputs, check_outputs


class GivenFileSubject:
    """The file as ONNX Runtime runs it on the CPU, not optimised.

    Args:
        file: with a batch that is open, or as large as the file takes.
        labels: names of its outputs, None if unknown.
        name: for people.
    """

    kind = "onnx"
    device = "cpu"

    def __init__(self, file: OnnxFile, *, labels: Sequence[str] | None, name: str = "original") -> None:
        self._file = file
        self.preprocess, self.output_kind, self.name = file.preprocess, file.kind, name
        self.labels = None if labels is None else tuple(labels)
        self.parameters: int | None = file.parameters
        self.sha256: str | None = file.source.weights_sha256

    @cached_property
    def _session(self) -> Session:
        return self._file.session()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the file again."""
        return {key: value for key, value in self.__dict__.items() if key != "_session"}

    def outputs(self, pixels: Images) -> Outputs:
        answers = self._file.through(self._session, self.preprocess.normalise_unit(pixels))
        return check_outputs(answers, len(pixels), self.name)
