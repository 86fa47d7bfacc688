"""How strongly units, sub-units and their control answer to images, and how alike those images are: computed by the
split file itself, in the session that serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from elude.exporter.images import ImageSource
from elude.exporter.onnx_files.run import Array
from elude.exporter.scoring.activity import UNITS, Activity, Totals
from elude.exporter.scoring.measures import SUB_UNITS, Measures, score
from elude.exporter.scoring.ms_score import Visit
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.session import GraphResult, GraphSession
from elude.handlers.images.preprocess import Preprocess

Progress = Callable[[int, int], None]


def activity_of_files(
    files: Mapping[str, Path], images: ImageSource, preprocess: Preprocess, *, batch_size: int, progress: Progress
) -> dict[str, dict[str, Activity]]:
    """Layer → ``units`` and each family of sub-units → activity, in one pass.

    Args:
        files: family → the file that computes it; ``sub_units`` among them, which gives the units too.
        images: any images.
        preprocess: of the model.
        batch_size: images per forward pass.
        progress: called with (images done, images).
    """
    sessions = {name: GraphSession(path) for name, path in files.items()}
    totals: dict[tuple[str, str], Totals] = {}

    def add(layer: str, family: str, start: int, values: Array) -> None:
        totals.setdefault((layer, family), Totals(len(images), values.shape[2])).add(start, values)

    for start, pixels in images.batches(preprocess, batch_size):
        for name, session in sessions.items():
            result = session.run(pixels, inspect=True)
            for layer, values in result.sub_units.items():
                add(layer, name, start, values)
            if name == SUB_UNITS:
                for layer, values in result.units.items():
                    add(layer, UNITS, start, values)
        progress(start + len(pixels), len(images))
    layers = [layer.name for layer in sessions[SUB_UNITS].layers]
    return {layer: {family: totals[layer, family].finish(layer) for family in (UNITS, *files)} for layer in layers}


def measures_of_files(
    files: Mapping[str, Path],
    splits: Mapping[str, LayerSplit],
    images: ImageSource,
    preprocess: Preprocess,
    *,
    held_out: bool,
    top: int,
    batch_size: int,
    progress: Progress,
) -> Measures:
    """As ``elude.exporter.scoring.measures.ms_scores``, in two passes."""
    count = len(images)

    def first(done: int, _: int) -> None:
        progress(done, 2 * count)

    activity = activity_of_files(files, images, preprocess, batch_size=batch_size, progress=first)
    session = GraphSession(files[SUB_UNITS])

    def each_batch(visit: Visit) -> None:
        for start, result in _results(session, images, preprocess, batch_size):
            visit(start, len(result.output), result.units)
            progress(count + start + len(result.output), 2 * count)

    return score(activity, splits, each_batch, images, held_out=held_out, top=top)


def _results(
    session: GraphSession, images: ImageSource, preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[int, GraphResult]]:
    for start, pixels in images.batches(preprocess, batch_size):
        yield start, session.run(pixels, inspect=True)
