"""Size: the number of parameters in millions. Buffers, such as batch-norm statistics, do not count."""

from __future__ import annotations

from elude.handlers.errors import EvaluationError
from elude.quality.dimensions import HIGHER_IS_BETTER
from elude.quality.dimensions.result import DimensionResult


def params_m(parameters: int) -> DimensionResult:
    """Parameters / 1e6, unrounded (the published table rounds to 0.1).

    Raises:
        EvaluationError: if ``parameters`` is not positive.
    """
    if parameters <= 0:
        raise EvaluationError(
            f"A model has at least one parameter, not {parameters}.", "Give the number of its parameters."
        )
    return DimensionResult(parameters / 1e6, HIGHER_IS_BETTER["params_m"], 0, None, {"parameters": float(parameters)})
