"""Linear layers: z = W q + b at every token.

With w^s the weights of sub-unit s, where the w^s of the sub-units of unit u sum to W_u and their b^s to b_u:

    sum_s z^s = sum_s (w^s q + b^s) = (sum_s w^s) q + sum_s b^s = W_u q + b_u = z_u

so one Linear with the sub-units' weights as its rows, and a sum over each unit's rows, is the
layer. The sum must be taken before anything nonlinear: f(z_u) is not sum_s f(z^s). What the layer
feeds (GELU after fc1, softmax after q and k) does not matter, nor which linear layer it is: fc1,
fc2, qkv, proj and head are all the same.
"""

from __future__ import annotations

from torch import Tensor, nn

from elude.handlers.errors import UnsupportedLayerError


class LinearRows(nn.Module):
    """Computes any rows of sub-unit weights of one Linear; holds no weights itself."""

    groups = 1

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, group: Tensor) -> Tensor:
        """(…, rows): outputs of ``weight`` (rows, inputs) and ``bias`` (rows,) for ``x`` (…, inputs);

        ``group`` is not needed.
        """
        return nn.functional.linear(x, weight, bias)

    def tokens(self, values: Tensor, batch: int) -> Tensor:
        """(batch, tokens, features) of (batch, features), (batch, …, features) or (batch * windows, …, features).

        Raises:
            UnsupportedLayerError: if the first axis is no multiple of the batch: the layer then
                does not work image by image.
        """
        if values.shape[0] % batch:
            raise UnsupportedLayerError(
                f"A split layer saw {values.shape[0]} rows for a batch of {batch} images.",
                "Split a layer that sees each image by itself.",
            )
        return values.reshape(batch, -1, values.shape[-1])

    def image(self, values: Tensor, index: int, batch: int) -> Tensor:
        """The part of the layer's input or output that belongs to one image, as a batch of one."""
        size = values.shape[0] // batch
        return values[index * size : (index + 1) * size]

    def untokens(self, values: Tensor, like: Tensor) -> Tensor:
        """(tokens, units) in the shape of ``like``, the layer's output for one image."""
        return values.reshape(like.shape)

    def merge(self, values: Tensor, parent: Tensor, units: int) -> Tensor:
        """(…, units): sum of each unit's sub-units (…, sub_units)."""
        return values.new_zeros(*values.shape[:-1], units).index_add(-1, parent, values)
