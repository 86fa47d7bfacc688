"""The disentangled twin of a model in graft form: the same model, with its sub-units to look at and to steer.

Each split layer keeps computing z = W q + b itself; a forward hook on it computes sub-units on the
side when asked, or adds the change of edits (elude.exporter.rewrite.layer). With neither the hook
returns nothing and the output is bit-identical to the original's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from elude.exporter.rewrite.kinds import find
from elude.exporter.rewrite.layer import SplitLayer
from elude.exporter.splitting.layer_split import LayerSplit
from elude.handlers.bundle.edits import PADDING, Edit
from elude.handlers.errors import UnsupportedLayerError, UsageError

Rows = tuple[tuple[Edit, ...], ...]


@dataclass
class _Call:
    """What one forward call does besides predicting."""

    batch: int = 0
    rows: Rows = ()
    units: dict[str, Tensor] | None = None
    sub_units: dict[str, Tensor] | None = None
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        return not self.rows and self.units is None and self.sub_units is None


class _Graft:
    """A split layer beside its module, and the hook that joins them.

    ``first``: index of its first sub-unit over all layers.
    """

    def __init__(self, split: SplitLayer, first: int, call: _Call) -> None:
        self.split, self.first, self.call = split, first, call

    def hook(self, module: nn.Module, args: tuple[Tensor, ...], z: Tensor) -> Tensor | None:
        call, split = self.call, self.split
        if call.idle:
            return None
        call.seen[split.name] = call.seen.get(split.name, 0) + 1
        if call.units is not None:
            # a copy: an activation that works in place overwrites z as soon as the hook returns
            call.units[split.name] = split.rows.tokens(z, call.batch).clone()
        if call.sub_units is not None:
            call.sub_units[split.name] = split.rows.tokens(split.activations(args[0]), call.batch)
        edits = [
            [self._own(edit) for edit in row if 0 <= edit.index - self.first < split.sub_unit_count]
            for row in call.rows
        ]
        if not any(edits):
            return None
        split.rows.tokens(z, call.batch)  # refuses a layer whose first axis is not made of images
        return split.steered(args[0], z, edits if len(edits) == call.batch else edits * call.batch)

    def _own(self, edit: Edit) -> Edit:
        return Edit(edit.index - self.first, edit.gain, edit.offset, edit.patches)


class Disentangled(nn.Module):
    """A model with split layers; made by ``elude.exporter.rewrite.graft``.

    One call at a time: edits are held while it runs.

    Args:
        model: the model, which gets the hooks: hand over a copy.
        splits: of its layers; sub-unit indices count over all of them in this order.
    """

    def __init__(self, model: nn.Module, splits: Sequence[LayerSplit]) -> None:
        super().__init__()
        self.model = model
        self._call = _Call()
        self._layers = nn.ModuleList()
        self.layers = tuple(split.layer for split in splits)
        self.sub_unit_count = 0
        for split in splits:
            module = find(model, split)
            graft = _Graft(SplitLayer(module, split), self.sub_unit_count, self._call)
            module.register_forward_hook(graft.hook)
            self._layers.append(graft.split)
            self.sub_unit_count += split.sub_units

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The model's output for ``x`` (batch, …), with the edits of ``steer`` where one is active.

        Raises:
            UsageError: if the active edits are neither one row nor as many as the batch.
            UnsupportedLayerError: if an edited layer is not called exactly once per forward pass.
        """
        call = self._call
        if call.idle:
            return self.model(x, *args, **kwargs)
        call.batch = x.shape[0]
        call.seen.clear()
        if len(call.rows) > 1 and len(call.rows) != call.batch:
            raise UsageError(
                f"There are edits for {len(call.rows)} images, but {call.batch} images.",
                "Give one row of edits, or one an image.",
            )
        output = self.model(x, *args, **kwargs)
        for name in self.layers:
            count = call.seen.get(name, 0)
            if count != 1:
                raise UnsupportedLayerError(
                    f"{name} is called {count} times in one forward pass.",
                    "Split a layer that the model calls exactly once.",
                )
        return output

    def sub_units(self, x: Tensor) -> dict[str, Tensor]:
        """Pre-activations of all sub-units: layer → (batch, tokens, sub-units), before any edit of that same layer."""
        self._call.sub_units = {}
        try:
            self(x)
            return self._call.sub_units
        finally:
            self._call.sub_units = None

    def units(self, x: Tensor) -> dict[str, Tensor]:
        """The layers' own outputs: layer → (batch, tokens, units), before any edit of that same layer."""
        self._call.units = {}
        try:
            self(x)
            return self._call.units
        finally:
            self._call.units = None

    @contextmanager
    def steer(self, rows: Sequence[Sequence[Edit]]) -> Iterator[Disentangled]:
        """Within the block, forward calls are edited: row i edits image i, a single row every image.

        Indices of -1 edit nothing.

        Raises:
            UsageError: for an index that does not exist, a gain or offset that is not finite, a
                negative number of patches, or when another ``steer`` block is active.
        """
        if self._call.rows:
            raise UsageError(
                "The model is being steered already.", "Leave the other steer block first, or join the edits."
            )
        for edit in (edit for row in rows for edit in row):
            self._check(edit)
        active = tuple(tuple(edit for edit in row if edit.index != PADDING) for row in rows)
        self._call.rows = active if any(active) else ()
        try:
            yield self
        finally:
            self._call.rows = ()

    def _check(self, edit: Edit) -> None:
        if not PADDING <= edit.index < self.sub_unit_count:
            raise UsageError(f"There is no sub-unit {edit.index}.", f"Indices run from 0 to {self.sub_unit_count - 1}.")
        if not (math.isfinite(edit.gain) and math.isfinite(edit.offset)):
            raise UsageError(
                f"The edit of sub-unit {edit.index} has gain {edit.gain} and offset {edit.offset}.",
                "Give finite numbers.",
            )
        if edit.patches < 0:
            raise UsageError(
                f"The edit of sub-unit {edit.index} has {edit.patches} patches.",
                "Give 0 for all tokens, or a positive number.",
            )
