"""The measures of a split: MS-Score, centred MS-Score and class purity of units, of sub-units and of the fair control
with as many parts.

Without the random control a gain may be mere expansion. The floor is the score of random pairs of images, each at a
random token: without it, scores on two sets of images cannot be compared. On narrow data every output points the same
way and the MS-Score saturates; so it is also given for outputs less their mean over all tokens and
images, and, where images have labels, as class purity: the part of the top images that are of the
most frequent class among them. Features that are never above 0, or whose score is 0/0, are left out
and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elude.exporter.images import ImageSource
from elude.exporter.images.classes import enough_per_class
from elude.exporter.models.tokens import to_tokens
from elude.exporter.progress import Progress
from elude.exporter.scoring.activity import UNITS, Activity, scan
from elude.exporter.scoring.ms_score import Visit, choose, concentrate, external_scores, random_pairs
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

    from elude.exporter.models.layers import Layer
    from elude.exporter.models.walk import Calls

SUB_UNITS, RANDOM = "sub_units", "random"
PAIRS = "random_pairs"
TOP = 100
PURITY_TOP = 16


@dataclass(frozen=True)
class Scores:
    """Scores of the features of one layer, each float64 (features,) and NaN where left out.

    Attributes:
        ms: MS-Score of the layer's output as it is.
        centred: MS-Score of the output less its mean.
        purity: part of the top images that are of one class; all NaN where no image has a label, or there are fewer
            than two images per class.
        of_split_unit: bool (features,), whether the feature is, or belongs to, a unit that was split.
        external: MS-Score of the embeddings of another network
            (elude.exporter.scoring.external_encoder), if there is one.
        external_centred: the same with embeddings less their mean.
    """

    ms: NDArray[np.float64]
    centred: NDArray[np.float64]
    purity: NDArray[np.float64]
    of_split_unit: NDArray[np.bool_]
    external: NDArray[np.float64] | None = None
    external_centred: NDArray[np.float64] | None = None

    @property
    def left_out(self) -> int:
        """Number of features without a score."""
        return int(np.isnan(self.ms).sum())

    def to_json(self) -> dict[str, Any]:
        """Counts, means and medians over all features and over those of split units, and each feature's MS-Score."""
        values = {"ms": self.ms, "centred": self.centred, "purity": self.purity}
        if self.external is not None and self.external_centred is not None:
            values |= {"external": self.external, "external_centred": self.external_centred}
        out: dict[str, Any] = {"features": len(self.ms), "left_out": self.left_out}
        for name, scores in values.items():
            out[f"{name}_mean"] = _statistic(scores, np.mean)
            out[f"{name}_median"] = _statistic(scores, np.median)
            out[f"{name}_mean_of_split_units"] = _statistic(scores[self.of_split_unit], np.mean)
        return out | {"each": {name: [_number(score) for score in scores] for name, scores in values.items()}}


@dataclass(frozen=True)
class Measures:
    """Scores of all layers: ``layers[layer]["units" | "sub_units" | "random"]``.

    Attributes:
        images: number of evaluation images.
        held_out: whether these images were not among the probing images.
        top: images per score, K.
        tokens: layer → number of its tokens, which tells where on an image a token is.
        layers: layer → family → scores.
        pairs: layer → MS-Score of random pairs of images, as they are and centred.
        activity: layer → activity of its sub-units on these images; not in ``to_json``.
    """

    images: int
    held_out: bool
    top: int
    tokens: dict[str, int]
    layers: dict[str, dict[str, Scores]]
    pairs: dict[str, tuple[float, float]]
    activity: Mapping[str, Activity]

    def to_json(self) -> dict[str, Any]:
        """As the content of ``measures.json``."""
        layers = {
            layer: {name: scores.to_json() for name, scores in families.items()}
            | {PAIRS: {"ms": _number(self.pairs[layer][0]), "centred": _number(self.pairs[layer][1])}}
            for layer, families in self.layers.items()
        }
        facts = {"images": self.images, "held_out": self.held_out, "top": self.top, "tokens": self.tokens}
        return {"schema_version": 1, **facts, "layers": layers}


def ms_scores(
    model: nn.Module,
    layers: Sequence[Layer],
    splits: Mapping[str, LayerSplit],
    random: Mapping[str, LayerSplit],
    *,
    images: ImageSource,
    preprocess: Preprocess,
    held_out: bool,
    top: int = TOP,
    batch_size: int = 64,
    progress: Progress | None = None,
    embeddings: NDArray[np.float64] | None = None,
) -> Measures:
    """Score units, sub-units and the sub-units of the control, in two passes over the images.

    Args:
        model: the original model.
        layers: of it.
        splits: layer → its split.
        random: layer → its random control, with as many parts per unit.
        images: the evaluation images.
        preprocess: of the model.
        held_out: whether the images were not among the probing images; only noted.
        top: images per score.
        batch_size: images per forward pass.
        progress: called with (images done, twice the images).
        embeddings: (images, dimensions), of another network
            (elude.exporter.scoring.external_encoder.embed), for the external scores.

    Raises:
        EvaluationError: an activation is not finite.
    """
    from elude.exporter.models.walk import walk

    count = len(images)
    first = None if progress is None else lambda done, _: progress(done, 2 * count)
    second = None if progress is None else lambda done, _: progress(count + done, 2 * count)
    families = {SUB_UNITS: splits, RANDOM: random}
    activity = scan(model, layers, families, images, preprocess, batch_size=batch_size, progress=first)

    def each_batch(visit: Visit) -> None:
        def outputs(start: int, batch: int, calls: Calls) -> None:
            visit(start, batch, {layer.name: to_tokens(calls[layer.name][1], layer, batch) for layer in layers})

        walk(model, layers, images, preprocess, outputs, batch_size=batch_size, progress=second)

    return score(activity, splits, each_batch, images, held_out=held_out, top=top, embeddings=embeddings)


def score(
    activity: Mapping[str, Mapping[str, Activity]],
    splits: Mapping[str, LayerSplit],
    each_batch: Callable[[Visit], None],
    images: ImageSource,
    *,
    held_out: bool,
    top: int = TOP,
    embeddings: NDArray[np.float64] | None = None,
) -> Measures:
    """Score features whose activity over the images is known, in one more pass.

    Args:
        activity: layer → ``units``, ``sub_units`` and ``random`` → activity.
        splits: layer → its split.
        each_batch: the pass, see ``elude.exporter.scoring.ms_score.concentrate``.
        images: those that ``activity`` counts.
        held_out: see ``ms_scores``; ``top`` and ``embeddings``, too.
    """
    count = len(images)
    chosen = {(layer, name): choose(of, top) for layer, each in activity.items() for name, of in each.items()}
    chosen |= {(layer, PAIRS): random_pairs(count, each[UNITS].tokens) for layer, each in activity.items()}
    similar = concentrate(chosen, {layer: each[UNITS].mean for layer, each in activity.items()}, each_batch)
    labels = [entry.label for entry in images.entries]
    result: dict[str, dict[str, Scores]] = {}
    for layer, each in activity.items():
        split = splits[layer].parts > 1
        of_split_unit = {UNITS: split, SUB_UNITS: split[splits[layer].parent], RANDOM: split[splits[layer].parent]}
        result[layer] = {
            name: _scores(of, similar[layer, name], labels, of_split_unit[name], embeddings, top)
            for name, of in each.items()
        }
    tokens = {layer: each[UNITS].tokens for layer, each in activity.items()}
    pairs = {layer: (float(similar[layer, PAIRS][0][0]), float(similar[layer, PAIRS][1][0])) for layer in activity}
    of_sub_units = {layer: each[SUB_UNITS] for layer, each in activity.items()}
    return Measures(count, held_out, min(top, count), tokens, result, pairs, of_sub_units)


def _scores(
    activity: Activity,
    similar: tuple[NDArray[np.float64], NDArray[np.float64]],
    labels: list[str | None],
    of_split_unit: NDArray[np.bool_],
    embeddings: NDArray[np.float64] | None,
    top: int,
) -> Scores:
    dead = (activity.peak.max(axis=0) <= 0) | np.isnan(similar[0]) | np.isnan(similar[1])
    found = [*similar, purity(activity.strongest(PURITY_TOP), labels)]
    if embeddings is not None:
        found += [external_scores(activity, each, top) for each in (embeddings, embeddings - embeddings.mean(axis=0))]
    ms, centred, pure, *external = (np.where(dead, np.nan, scores) for scores in found)
    return Scores(ms, centred, pure, of_split_unit, *external)


def purity(images: NDArray[np.int64], labels: list[str | None]) -> NDArray[np.float64]:
    """float64 (features,): part of the images (top, features) that are of the most frequent class;

    NaN when no image has a class, or there are fewer than two images per class: every purity would be 1 / top.
    """
    names = sorted({label for label in labels if label is not None})
    if not enough_per_class(labels):
        return np.full(images.shape[1], np.nan)
    number = {name: index for index, name in enumerate(names)}
    codes = np.array([-1 if label is None else number[label] for label in labels])[images]
    most = np.array([np.bincount(column[column >= 0], minlength=1).max() for column in codes.T])
    return most / len(images)


def _statistic(values: NDArray[np.float64], of: Callable[..., np.floating]) -> float | None:
    """Mean or median of the values that are not NaN, None when there is none."""
    values = values[~np.isnan(values)]
    return _number(of(values)) if len(values) else None


def _number(value: float | np.floating) -> float | None:
    """For JSON: NaN becomes null, and six digits are enough."""
    return None if np.isnan(value) else round(float(value), 6)
