"""The graft form: the model as it is, with sub-units computed beside it.

Bit-identical to the original as long as nothing is edited.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from elude.exporter.rewrite.kinds import check_distinct
from elude.exporter.rewrite.twin import Disentangled
from elude.exporter.splitting.layer_split import LayerSplit


def graft(model: nn.Module, splits: Sequence[LayerSplit]) -> Disentangled:
    """The disentangled twin of ``model``, in its training or evaluation mode; the model itself is not touched.

    Raises:
        UsageError: if a split does not fit the model.
        UnsupportedLayerError: if a layer cannot be split.
    """
    check_distinct(splits)
    twin = Disentangled(copy.deepcopy(model), splits)
    twin.training = (
        model.training
    )  # its own flag only: sub-modules may each have their own, as frozen normalisations do
    return twin
