"""What splitting needs to know of a layer z = W q + b, whether torch holds it or an ONNX file."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray


class WeightedLayer(Protocol):
    """A layer that can be split.

    ``inputs`` are contributions per unit: of a convolution the input channels of one of its ``groups``, each with a
    ``window`` of kernel positions; ``groups`` and ``window`` are 1 for a linear layer.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Literal["linear", "conv"]: ...

    @property
    def units(self) -> int: ...

    @property
    def inputs(self) -> int: ...

    @property
    def groups(self) -> int: ...

    @property
    def window(self) -> int: ...

    def weight(self) -> NDArray[np.float32]:
        """float32 (units, inputs, *kernel)."""
        ...

    def bias(self) -> NDArray[np.float32] | None:
        """float32 (units,), None where it has none."""
        ...
