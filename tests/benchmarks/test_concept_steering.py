"""Steering a set of sub-units in the benchmark, against changing the units by hand; and the choice of a gain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.method.concept_steering import GAINS, Material, Outcome, answers, outcomes, strongest


class Tail(nn.Module):
    """What is left of a model behind its last block: the mean over tokens is the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()

    def forward_head(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


def test_steering_sub_units_changes_their_units_by_their_activations() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, sub_units = (torch.randn(6, 4, count, generator=generator) for count in (3, 5))
    parent, labels = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 2, 0, 1, 2])
    tail = Tail()
    plain = answers(tail, tokens)
    data = Material(tokens, sub_units, parent, plain, labels)
    steered = outcomes(tail, data, [1, 3, 4], 2)
    for gain, outcome in zip(GAINS, steered, strict=True):
        changed = tokens.clone()
        changed[:, :, 0] += (gain - 1) * sub_units[:, :, 1]
        changed[:, :, 2] += (gain - 1) * (sub_units[:, :, 3] + sub_units[:, :, 4])
        after = changed.mean(1).softmax(-1)
        assert outcome.effect == pytest.approx(float((plain - after)[[2, 5], 2].mean()), abs=1e-6)
        assert outcome.harm == pytest.approx(float((after - plain).abs().sum(1)[[0, 1, 3, 4]].mean() / 2), abs=1e-6)


def test_the_largest_effect_within_the_harm_is_taken_and_none_where_there_is_none() -> None:
    tried = [Outcome(0.1, 0.01), Outcome(0.3, 0.02), Outcome(0.9, 0.5), Outcome(-0.2, 0.0)]
    assert strongest(tried, 0.02) == 1
    assert strongest(tried, 1.0) == 2
    assert strongest(tried[3:], 1.0) is None
