"""How well features follow single factors, on pictures that neither made the features nor chose their factor.

Relevance of a feature for a factor: mutual information of the feature (in quantile bins) with the
    factor, less what the same margins give
by chance (the expectation under the hypergeometric model of Vinh, Epps, Bailey, JMLR 11, 2010),
over the factor's entropy less the same. 1: the feature tells the factor; 0: no more than chance.
Chance must be taken off, as 27 roles in 8 bins share much with anything.

- own: relevance for the feature's own factor, the one of largest relevance on the training half;
  gap: own less the largest of the others.
- mig: mutual information gap (Chen et al., arXiv 1802.04942): per factor, relevance of its best
  feature less that of the second best, both chosen on the training half.
- disentanglement, completeness, informativeness: DCI (Eastwood and Williams, ICLR 2018), with a
  random forest's importances as R and its accuracy on the judging half as informativeness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics.cluster import expected_mutual_information

BINS = 8
TREES = 100

Values = NDArray[np.float32]  # (pictures, features)
Codes = NDArray[np.int64]  # (pictures, factors)


def binned(values: Values, training: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64 (pictures, features): each feature's bin, at quantiles of its training pictures; equal quantiles make
    one bin.
    """
    found = np.empty(values.shape, np.int64)
    for feature, column in enumerate(values.T):
        edges = np.unique(np.quantile(column[training], np.arange(1, BINS) / BINS))
        found[:, feature] = np.searchsorted(edges, column, side="left")
    return found


def relevance(bins: NDArray[np.int64], codes: Codes) -> NDArray[np.float64]:
    """float64 (features, factors), see the module."""
    found = np.empty((bins.shape[1], codes.shape[1]))
    for factor, code in enumerate(codes.T):
        levels = int(code.max()) + 1
        for feature, column in enumerate(bins.T):
            table = np.bincount(column * levels + code, minlength=(int(column.max()) + 1) * levels).reshape(-1, levels)
            table = table[table.any(axis=1)][:, table.any(axis=0)]
            chance = expected_mutual_information(table, len(code))
            entropy = _entropy(table.sum(axis=0))
            mutual = entropy + _entropy(table.sum(axis=1)) - _entropy(table.ravel())
            found[feature, factor] = (mutual - chance) / (entropy - chance) if len(table) > 1 else 0.0
    return found


def single(training: NDArray[np.float64], judging: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """``factor`` (its number), ``own`` and ``gap`` of each feature from its relevances on both halves, (features,
    factors).
    """
    factor = training.argmax(axis=1)
    rows = np.arange(len(factor))
    others = judging.copy()
    others[rows, factor] = -np.inf
    own = judging[rows, factor]
    return {"factor": factor.astype(float), "own": own, "gap": own - others.max(axis=1)}


def mig(training: NDArray[np.float64], judging: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (factors,): the mutual information gap."""
    order = np.argsort(-training, axis=0, kind="stable")[:2]
    best = np.take_along_axis(judging, order, axis=0)
    gaps: NDArray[np.float64] = best[0] - best[1]
    return gaps


def importances(
    values: Values, codes: Codes, training: NDArray[np.bool_], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The matrix R, float64 (features, factors), and the accuracy on the judging half, float64 (factors,)."""
    columns, accuracy = [], []
    for code in codes.T:
        forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=1).fit(values[training], code[training])
        columns.append(forest.feature_importances_)
        accuracy.append(forest.score(values[~training], code[~training]))
    return np.stack(columns, axis=1), np.array(accuracy)


def dci(importance: NDArray[np.float64]) -> tuple[float, float]:
    """Disentanglement and completeness of R (features, factors), each from 0 to 1.

    D = sum_i rho_i (1 - H_K(P_i)) with P_i the row i of R over its sum and rho_i its part of all of
    R; C = mean_k (1 - H_D(column k)). H_b is the entropy to base b.
    """
    features, factors = importance.shape
    rows = importance.sum(axis=1)
    live = rows > 0
    one_factor = 1 - _entropies(importance[live] / rows[live, None]) / np.log(factors)
    one_feature = 1 - _entropies((importance / importance.sum(axis=0)).T) / np.log(features)
    return float((rows[live] / rows.sum()) @ one_factor), float(one_feature.mean())


def _entropies(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1)


def _entropy(counts: NDArray[np.int64]) -> float:
    """Entropy in nats of a distribution given by counts."""
    return float(_entropies((counts / counts.sum())[None])[0])
