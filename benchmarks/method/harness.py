"""One way to score every kind of split and feature: on the held-out pictures, by MS-Score (as it is and centred) and
class purity.

A family of features is a matrix (features, 1536) and a bias (features,) on the layer's input, so
that units, sub-units and random splits are scored by the same code, in one pass for many families.
Scores follow ``elude.exporter.scoring.measures``: features that never fire are left out and
counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache as cached
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.method.activations import activations
from benchmarks.method.activations import layer as split_layer_of_model
from benchmarks.method.fetch import cache
from elude.exporter.splitting.contributions import layer_bias, layer_weight
from elude.exporter.splitting.layer_split import LayerSplit

TOP, PURITY_TOP = 40, 16
TOKENS = 64  # of each held-out picture; all 257 would cost four times as much
_BLOCK = 64


@dataclass(frozen=True)
class Peaks:
    """float32 (pictures, features) largest activation over the tokens, and int64 (pictures, features) where it is."""

    value: NDArray[np.float32]
    token: NDArray[np.int64]


@dataclass(frozen=True)
class Family:
    """Linear features of the layer's input: weight (features, inputs), bias (features,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def units(count: int, seed: int = 0) -> NDArray[np.int64]:
    """A seeded choice of the layer's units, ascending."""
    return np.sort(np.random.default_rng(seed).choice(len(weight()), count, replace=False))


@cached
def weight() -> NDArray[np.float32]:
    """float32 (units, inputs) of the layer."""
    return layer_weight(split_layer_of_model())[:, :, 0]


@cached
def bias() -> NDArray[np.float32]:
    """float32 (units,) of the layer."""
    return layer_bias(split_layer_of_model())


def family(split: LayerSplit, chosen: NDArray[np.int64]) -> Family:
    """The sub-units of a split whose rows are the units ``chosen`` of the layer."""
    parent = chosen[split.parent]
    return Family(
        (split.shares() * weight()[parent]).astype(np.float32), (split.omega() * bias()[parent]).astype(np.float32)
    )


@cached
def held_out() -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """The layer's input (pictures, TOKENS, inputs) and output (pictures, TOKENS, units) at seeded tokens of each
    held-out picture.
    """
    inputs = activations("held_out").inputs
    pictures, tokens, _ = inputs.shape
    q = np.empty((pictures, TOKENS, inputs.shape[2]), np.float16)
    for picture in range(pictures):
        q[picture] = inputs[picture, np.sort(np.random.default_rng([picture, 7]).choice(tokens, TOKENS, replace=False))]
    z = np.empty((pictures, TOKENS, len(weight())), np.float32)
    w = torch.from_numpy(weight())
    for start in range(0, pictures, _BLOCK):
        z[start : start + _BLOCK] = (
            torch.from_numpy(q[start : start + _BLOCK].astype(np.float32)) @ w.T
        ).numpy() + bias()
    return q, z


def peaks(families: Mapping[str, Family]) -> dict[str, Peaks]:
    """The peaks of all families on the held-out pictures, in one pass."""
    inputs, _ = held_out()
    stacked = torch.from_numpy(np.concatenate([each.weight for each in families.values()]))
    offset = torch.from_numpy(np.concatenate([each.bias for each in families.values()]))
    value = np.empty((len(inputs), len(stacked)), np.float32)
    token = np.empty((len(inputs), len(stacked)), np.int64)
    for start in range(0, len(inputs), _BLOCK):
        q = torch.from_numpy(inputs[start : start + _BLOCK].astype(np.float32))
        most, where = (q @ stacked.T).max(dim=1)
        value[start : start + _BLOCK], token[start : start + _BLOCK] = (most + offset).numpy(), where.numpy()
    ends = np.cumsum([len(each.weight) for each in families.values()])
    columns = [slice(end - len(each.weight), end) for end, each in zip(ends, families.values(), strict=True)]
    return {name: Peaks(value[:, column], token[:, column]) for name, column in zip(families, columns, strict=True)}


def score(found: Peaks, top: int = TOP) -> dict[str, NDArray[np.float64]]:
    """``ms``, ``centred`` and ``purity`` of each feature, NaN where it never fires."""
    order = np.argsort(-found.value, axis=0, kind="stable")[:top]
    value = np.take_along_axis(found.value, order, axis=0).astype(np.float64)
    token = np.take_along_axis(found.token, order, axis=0)
    low, high = found.value.min(axis=0).astype(np.float64), found.value.max(axis=0).astype(np.float64)
    dead = (high <= 0) | (high <= low)
    weights = (value - low) / np.where(dead, 1, high - low)
    pair = weights.sum(axis=0) ** 2 - (weights**2).sum(axis=0)
    dead |= (weights > 0).sum(axis=0) < 2
    _, z = held_out()
    scores = {}
    for name, centre in (("ms", 0.0), ("centred", _centre())):
        result = np.empty(value.shape[1])
        for feature in range(len(result)):
            e = z[order[:, feature], token[:, feature]].astype(np.float64) - centre
            e *= (weights[:, feature] / np.linalg.norm(e, axis=1))[:, None]
            result[feature] = (np.square(e.sum(axis=0)).sum() - np.square(e).sum()) / max(pair[feature], 1e-30)
        scores[name] = np.where(dead, np.nan, result)
    labels = np.unique(activations("held_out").labels, return_inverse=True)[1][order[:PURITY_TOP]]
    most = np.array([np.bincount(column).max() for column in labels.T]) / len(labels)
    return scores | {"purity": np.where(dead, np.nan, most)}


def redundancy(found: Peaks, unit: NDArray[np.int64], top: int = TOP) -> dict[str, float]:
    """How alike the features are: ``nearest``, the mean over features of the largest cosine between the mean
    (centred) embedding of its top
    pictures and that of a feature of another unit; ``pictures``, how many pictures are among the
    top of any; ``firing``, the part of all pictures where a feature is above 0.
    """
    order = np.argsort(-found.value, axis=0, kind="stable")[:top]
    token = np.take_along_axis(found.token, order, axis=0)
    z, means = held_out()[1], []
    for feature in range(order.shape[1]):
        e = z[order[:, feature], token[:, feature]] - _centre()
        means.append((e / np.linalg.norm(e, axis=1)[:, None]).mean(axis=0))
    directions = np.stack(means) / np.linalg.norm(np.stack(means), axis=1)[:, None]
    similar = np.where(unit[:, None] == unit, -1, directions @ directions.T)
    return {
        "nearest": float(similar.max(axis=1).mean()),
        "pictures": len(np.unique(order)),
        "firing": float((found.value > 0).mean()),
    }


@cached
def _centre() -> NDArray[np.float64]:
    centre: NDArray[np.float64] = held_out()[1].mean(axis=(0, 1), dtype=np.float64)
    return centre


def summary(scores: Mapping[str, NDArray[np.float64]], which: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Means over the features (or ``which`` of them) that fire, and the number of those that do not."""
    chosen = {name: values if which is None else values[which] for name, values in scores.items()}
    return {name: float(np.nanmean(values)) for name, values in chosen.items()} | {
        "dead": int(np.isnan(chosen["ms"]).sum())
    }


def save(name: str, result: object) -> Path:
    """Keep a result as JSON in the cache."""
    path = cache() / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    return path
