"""An ONNX file as an export needs it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from elude.exporter import engines
from elude.exporter.export.job import Run
from elude.exporter.graph.site import Prepared
from elude.exporter.graph.write_graph import write_split
from elude.exporter.images import ImageSource
from elude.exporter.models.options import ModelOptions
from elude.exporter.onnx_files.choose import choose_layers, tokens_of
from elude.exporter.onnx_files.collect import collect
from elude.exporter.onnx_files.features import activity_of_files, measures_of_files
from elude.exporter.onnx_files.layers import OnnxLayer, find_layers
from elude.exporter.onnx_files.read_file import OnnxFile, read_onnx
from elude.exporter.probing.probe_store import Probe
from elude.exporter.scoring.activity import Activity
from elude.exporter.scoring.measures import RANDOM, SUB_UNITS, Measures
from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.verify.check_onnx import verify_onnx
from elude.exporter.verify.report import Equivalence
from elude.handlers.errors import UsageError


@dataclass(frozen=True)
class OnnxJob:
    """A file and the layers that will be split."""

    model: OnnxFile
    layers: list[OnnxLayer]
    run: Run

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def computing(self) -> AbstractContextManager[None]:
        """ONNX Runtime computes on the CPU."""
        return nullcontext()

    def collect(self, images: ImageSource, folder: Path) -> dict[str, Probe]:
        """See ``elude.exporter.onnx_files.collect.collect``."""
        settings = self.run.settings
        return collect(
            self.model,
            self.layers,
            images,
            tokens_per_image=settings.tokens_per_image,
            seed=settings.seed,
            batch_size=settings.batch_size,
            progress=self.run.progress("probe"),
            folder=folder,
        )

    def write_graph(self, path: Path, splits: Sequence[LayerSplit]) -> None:
        """Write the split file."""
        write_file(self.model, path, self.layers, splits)

    def verify(self, path: Path, splits: Sequence[LayerSplit], pixels: NDArray[np.float32]) -> Equivalence:
        """Compare it with the given one."""
        return verify_onnx(self.model, path, splits, self.layers, pixels)

    def measure(
        self,
        path: Path,
        splits: Sequence[LayerSplit],
        controls: Sequence[LayerSplit],
        images: ImageSource,
        *,
        held_out: bool,
    ) -> Measures:
        """Scores by the split file, and by one with the controls in place of the splits."""
        settings = self.run.settings
        with tempfile.TemporaryDirectory() as folder:
            control = Path(folder) / "control.onnx"
            self.write_graph(control, controls)
            return measures_of_files(
                {SUB_UNITS: path, RANDOM: control},
                {split.layer: split for split in splits},
                images,
                self.model.preprocess,
                held_out=held_out,
                top=settings.measure_top,
                batch_size=settings.batch_size,
                progress=self.run.progress("measure"),
            )

    def activity(
        self, path: Path, splits: Sequence[LayerSplit], images: ImageSource
    ) -> Mapping[str, Mapping[str, Activity]]:
        """See ``elude.exporter.onnx_files.features.activity_of_files``."""
        return activity_of_files(
            {SUB_UNITS: path},
            images,
            self.model.preprocess,
            batch_size=self.run.settings.batch_size,
            progress=self.run.progress("atlas"),
        )


def is_onnx(model: object) -> bool:
    """Whether a model is named as an ONNX file."""
    return isinstance(model, (str, Path)) and Path(str(model).partition("?")[0]).suffix.lower() == ".onnx"


def prepare_onnx(path: Path, options: ModelOptions, pattern: str, images: int, run: Run) -> OnnxJob:
    """Everything that can be refused, before anything is collected."""
    settings = run.settings
    if settings.dtype != "float32" or settings.opset is not None:
        raise UsageError("An ONNX file keeps its type and operators.", "Leave out --dtype and --opset.")
    if settings.device not in ("auto", "cpu"):
        raise UsageError(
            f"An ONNX file is split on the CPU, not on {settings.device!r}.", "Leave out --device, or say cpu."
        )
    if run.engine != engines.LOCAL:
        raise UsageError(f"An ONNX file is split on this machine, not by {run.engine!r}.", "Leave out --engine.")
    with run.step("check"):
        file = read_onnx(path, options, dynamic_size=settings.dynamic_size)
        layers, reasons = find_layers(ir.from_proto(file.ready).graph)
        chosen = choose_layers(file, layers, reasons, pattern)
        tokens = tokens_of(file, chosen)
        for layer in chosen:
            settings.for_instances(images * min(settings.tokens_per_image, tokens[layer.name]), layer.name)
    return OnnxJob(file, chosen, run)


def write_file(file: OnnxFile, path: Path, layers: Sequence[OnnxLayer], splits: Sequence[LayerSplit]) -> None:
    """Graft splits of some layers onto a fresh graph of the file."""
    model, every = file.graph()
    fresh = {layer.name: layer for layer in every}
    sites = tuple(fresh[layer.name].site for layer in layers)
    write_split(
        Prepared(model, sites, "float32", ()),
        splits,
        path,
        layers=layers,
        source=file.source,
        preprocess=file.preprocess,
        kind=file.kind,
    )
