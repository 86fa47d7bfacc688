"""What an export needs of a model, whether torch runs it or an ONNX file is all there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from elude.exporter.export.export_settings import ExportSettings
from elude.exporter.images import ImageSource
from elude.exporter.probing.probe_store import Probe
from elude.exporter.progress import StepProgress
from elude.exporter.scoring.activity import Activity
from elude.exporter.scoring.measures import Measures
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.verify.report import Equivalence
from elude.exporter.weighted_layer import WeightedLayer
from elude.handlers.bundle.bundle import Source
from elude.handlers.images.preprocess import Preprocess


@dataclass(frozen=True)
class Run:
    """How an export runs: its settings, who clusters, and whom it reports to."""

    settings: ExportSettings
    report: StepProgress
    engine: str
    workers: int

    def progress(self, step: str) -> Callable[[int, int], None]:
        """Progress of one step."""
        return lambda done, total: self.report(step, done, total)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step that is done as a whole."""
        self.report(name, 0, 1)
        yield
        self.report(name, 1, 1)


class Described(Protocol):
    """Where a model came from, and what it takes and gives."""

    @property
    def source(self) -> Source: ...

    @property
    def preprocess(self) -> Preprocess: ...

    @property
    def labels(self) -> tuple[str, ...] | None: ...

    @property
    def kind(self) -> str: ...

    @property
    def parameters(self) -> int: ...


class Job(Protocol):
    """A model with the layers that will be split; all that can be refused has been checked."""

    @property
    def model(self) -> Described: ...

    @property
    def layers(self) -> Sequence[WeightedLayer]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def computing(self) -> AbstractContextManager[None]:
        """While inside, the model is where it computes."""
        ...

    def collect(self, images: ImageSource, folder: Path) -> dict[str, Probe]:
        """Activation instances of each layer, kept in ``folder``."""
        ...

    def write_graph(self, path: Path, splits: Sequence[LayerSplit]) -> None:
        """Write the split file."""
        ...

    def verify(self, path: Path, splits: Sequence[LayerSplit], pixels: NDArray[np.float32]) -> Equivalence:
        """Compare the split file with the original on images; EquivalenceError where they differ."""
        ...

    def measure(
        self,
        path: Path,
        splits: Sequence[LayerSplit],
        controls: Sequence[LayerSplit],
        images: ImageSource,
        *,
        held_out: bool,
    ) -> Measures:
        """Scores of units, sub-units and the control; ``path`` is the split file."""
        ...

    def activity(
        self, path: Path, splits: Sequence[LayerSplit], images: ImageSource
    ) -> Mapping[str, Mapping[str, Activity]]:
        """Layer → ``units`` and ``sub_units`` → activity; ``path`` is the split file."""
        ...
