"""Names given while a bundle is made, from the activations that its catalogue is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elude.exporter.images import ImageSource
from elude.exporter.naming import labels
from elude.exporter.naming.evidence import Name, names_json
from elude.exporter.naming.labels import Labels, LabelSettings, names_from_labels
from elude.exporter.scoring.activity import Activity
from elude.exporter.scoring.measures import SUB_UNITS
from elude.exporter.splitting.layer_split import LayerSplit


def names_at_export(
    splits: Sequence[LayerSplit], activity: Mapping[str, Mapping[str, Activity]], images: ImageSource
) -> tuple[dict[int, Name], dict[str, Any]]:
    """The names by index, and the content of ``names.json``; none where the images have no labels.

    Args:
        splits: in the order that numbers the sub-units.
        activity: layer → ``sub_units`` → activity on ``images``.
        images: with their classes.
    """
    carried, settings = Labels.of_classes([entry.label for entry in images.entries]), LabelSettings()
    peak = np.concatenate([activity[split.layer][SUB_UNITS].peak for split in splits], axis=1)
    names = names_from_labels(peak, carried, settings)
    return {name.index: name for name in names}, names_json(names, labels.settings_json(settings, len(images)))
