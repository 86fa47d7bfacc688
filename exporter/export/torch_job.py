"""A torch model as an export needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elude.exporter.export.job import Run
from elude.exporter.graph import emit
from elude.exporter.graph.prepare import prepare_graph
from elude.exporter.graph.site import Prepared
from elude.exporter.images import ImageSource
from elude.exporter.models.device import choose_device, on_device
from elude.exporter.models.layers import Layer, find_layers, splittable
from elude.exporter.models.loaded import LoadedModel
from elude.exporter.models.trial import try_out
from elude.exporter.models.walk import require_one_call
from elude.exporter.probing.probe import collect
from elude.exporter.probing.probe_store import Probe
from elude.exporter.rewrite import graft
from elude.exporter.scoring.activity import Activity, scan
from elude.exporter.scoring.measures import SUB_UNITS, Measures, ms_scores
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.verify.check import verify
from elude.exporter.verify.report import Equivalence
from elude.handlers.bundle.output_kinds import EMBEDDING, OUTPUT_NAMES


@dataclass(frozen=True)
class TorchJob:
    """A loaded model, its layers and its plain graph."""

    model: LoadedModel
    layers: list[Layer]
    graph: Prepared
    run: Run

    @property
    def notes(self) -> tuple[str, ...]:
        return self.graph.notes

    def computing(self) -> AbstractContextManager[None]:
        """While inside, the model is on the device that the settings name."""
        return on_device(self.model.module, choose_device(self.run.settings.device))

    def collect(self, images: ImageSource, folder: Path) -> dict[str, Probe]:
        """See ``elude.exporter.probing.probe.collect``."""
        settings = self.run.settings
        return collect(
            self.model.module,
            self.layers,
            images,
            self.model.preprocess,
            tokens_per_image=settings.tokens_per_image,
            seed=settings.seed,
            batch_size=settings.batch_size,
            progress=self.run.progress("probe"),
            folder=folder,
            engine=self.run.engine,
            workers=self.run.workers,
        )

    def write_graph(self, path: Path, splits: Sequence[LayerSplit]) -> None:
        """Write the split file."""
        emit(
            self.model.module,
            splits,
            path,
            layers=self.layers,
            input_size=self.model.preprocess.input_size,
            source=self.model.source,
            preprocess=self.model.preprocess,
            prepared=self.graph,
            kind=self.model.kind,
        )

    def verify(self, path: Path, splits: Sequence[LayerSplit], pixels: NDArray[np.float32]) -> Equivalence:
        """Compare it with torch."""
        module = self.model.module
        return verify(module, graft(module, splits), path, splits, self.layers, pixels, images=len(pixels))

    def measure(
        self,
        path: Path,
        splits: Sequence[LayerSplit],
        controls: Sequence[LayerSplit],
        images: ImageSource,
        *,
        held_out: bool,
    ) -> Measures:
        """See ``elude.exporter.scoring.measures.ms_scores``."""
        return ms_scores(
            self.model.module,
            self.layers,
            {split.layer: split for split in splits},
            {control.layer: control for control in controls},
            images=images,
            preprocess=self.model.preprocess,
            held_out=held_out,
            top=self.run.settings.measure_top,
            batch_size=self.run.settings.batch_size,
            progress=self.run.progress("measure"),
        )

    def activity(
        self, path: Path, splits: Sequence[LayerSplit], images: ImageSource
    ) -> Mapping[str, Mapping[str, Activity]]:
        """See ``elude.exporter.scoring.activity.scan``."""
        return scan(
            self.model.module,
            self.layers,
            {SUB_UNITS: {split.layer: split for split in splits}},
            images,
            self.model.preprocess,
            batch_size=self.run.settings.batch_size,
            progress=self.run.progress("atlas"),
        )


def prepare_torch(loaded: LoadedModel, pattern: str, images: int, run: Run) -> TorchJob:
    """Everything that can be refused, before anything is collected: a forward pass, the layers, the plain graph."""
    module, size, settings = loaded.module, loaded.preprocess.input_size, run.settings
    choose_device(settings.device)
    with run.step("check"):
        trial = try_out(module, size, splittable(module))
        layers = find_layers(module, pattern, trial, headless=loaded.kind == EMBEDDING)
        for layer in layers:
            require_one_call(layer.name, trial.calls.get(layer.name, 0))
            settings.for_instances(images * min(settings.tokens_per_image, trial.rows[layer.name]), layer.name)
        graph = prepare_graph(
            module,
            [layer.name for layer in layers],
            size,
            output=OUTPUT_NAMES[loaded.kind],
            opset=settings.opset,
            dtype=settings.dtype,
            dynamic_size=settings.dynamic_size,
        )
    return TorchJob(loaded, layers, graph, run)
