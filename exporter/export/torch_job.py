"""A torch model as an export needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

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
from elude.handlers.bundle.bundle import Source
from elude.handlers.bundle.output_kinds import EMBEDDING, OUTPUT_NAMES
from elude.handlers.images.preprocess import Preprocess


@dataclass(frozen=True)
class TorchJob:
    """A loaded model, its layers and its plain graph."""

    loaded: LoadedModel
    layers: list[Layer]
    graph: Prepared
    run: Run

    @property
    def source(self) -> Source:
        return self.loaded.source

    @property
    def preprocess(self) -> Preprocess:
        return self.loaded.preprocess

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.loaded.labels

    @property
    def kind(self) -> str:
        return self.loaded.kind

    @property
    def notes(self) -> tuple[str, ...]:
        return self.graph.notes

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.loaded.module.parameters())

    def computing(self) -> AbstractContextManager[None]:
        """While inside, the model is on the device that the settings name."""
        return on_device(self.loaded.module, choose_device(self.run.settings.device))

    def collect(self, images: ImageSource, folder: Path) -> dict[str, Probe]:
        """See ``elude.exporter.probing.probe.collect``."""
        settings = self.run.settings
        return collect(
            self.loaded.module,
            self.layers,
            images,
            self.preprocess,
            tokens_per_image=settings.tokens_per_image,
            seed=settings.seed,
            batch_size=settings.batch_size,
            progress=self.run.progress("probe"),
            folder=folder,
            engine=self.run.engine,
            workers=self.run.workers,
        )

    def write_graph(self, path: Path, splits: Sequence[LayerSplit], images: ImageSource) -> Equivalence:
        """Write the file, and compare it with torch."""
        module, report = self.loaded.module, self.run.report
        report("graph", 0, 1)
        emit(
            module,
            splits,
            path,
            layers=self.layers,
            input_size=self.preprocess.input_size,
            source=self.source,
            preprocess=self.preprocess,
            prepared=self.graph,
            kind=self.kind,
        )
        report("graph", 1, 1)
        report("verify", 0, 1)
        _, pixels = next(images.batches(self.preprocess, len(images)))
        found = verify(module, graft(module, splits), path, splits, self.layers, pixels, images=len(images))
        report("verify", 1, 1)
        return found

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
            self.loaded.module,
            self.layers,
            {split.layer: split for split in splits},
            {control.layer: control for control in controls},
            images=images,
            preprocess=self.preprocess,
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
            self.loaded.module,
            self.layers,
            {SUB_UNITS: {split.layer: split for split in splits}},
            images,
            self.preprocess,
            batch_size=self.run.settings.batch_size,
            progress=self.run.progress("atlas"),
        )


def prepare_torch(loaded: LoadedModel, pattern: str, images: int, run: Run) -> TorchJob:
    """Everything that can be refused, before anything is collected: a forward pass, the layers, the plain graph."""
    module, size, settings = loaded.module, loaded.preprocess.input_size, run.settings
    choose_device(settings.device)
    run.report("check", 0, 1)
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
    run.report("check", 1, 1)
    return TorchJob(loaded, layers, graph, run)
