"""KServe V2's tensors of numbers: images of models of many channels, each as the bytes of an ``.npy`` file, whose way
and limits it shares (``elude.handlers.images.arrays``).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elude.handlers.errors import RequestError
from elude.handlers.requests.validation import shown
from elude.handlers.settings import Limits

DATATYPES: dict[Any, type[np.generic]] = {"FP32": np.float32, "UINT8": np.uint8, "UINT16": np.uint16}
_FORMS = "Send [channels, H, W] or [H, W, channels], with the number of images before it if there are several."


def array_files(tensor: Mapping[str, Any], limits: Limits) -> list[bytes]:
    """The images of a tensor, as ``numpy.save`` writes them.

    Args:
        tensor: with a datatype of ``DATATYPES``, a shape of three or four numbers, and data, flat or nested.
        limits: of which instances are looked at.

    Raises:
        RequestError: shape and data do not fit each other or the datatype.
    """
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) not in (3, 4) or not all(type(n) is int and n > 0 for n in shape):
        raise RequestError(f"Field 'inputs[0].shape' is {shown(shape)}.", _FORMS)
    if len(shape) == 4 and shape[0] > limits.max_instances:
        raise RequestError(
            f"Field 'inputs[0].shape' has {shape[0]} images; at most {limits.max_instances} are allowed."
        )
    values = _numbers(tensor.get("data"), DATATYPES[tensor["datatype"]])
    if values.size != math.prod(shape):
        raise RequestError(
            f"Field 'inputs[0].data' has {values.size} numbers; the shape {shape} has {math.prod(shape)}.", _FORMS
        )
    return [_saved(image) for image in values.reshape((-1, *shape[-3:]))]


def _numbers(data: Any, kind: type[np.generic]) -> NDArray[Any]:
    try:
        values = np.array(data) if isinstance(data, list) else np.array(None)
    except ValueError as error:
        raise RequestError("Field 'inputs[0].data' has lists of different lengths.", _FORMS) from error
    if values.dtype.kind not in "iuf":
        raise RequestError(f"Field 'inputs[0].data' must be a list of numbers, not {shown(data)}.")
    if not issubclass(kind, np.integer):
        with np.errstate(over="ignore"):  # refused with the name of the image, as in a file
            return values.astype(kind)
    most = np.iinfo(kind).max
    if values.dtype.kind == "f" or (values.size and not 0 <= values.min() <= values.max() <= most):
        raise RequestError(f"Field 'inputs[0].data' must hold whole numbers from 0 to {most}.", "Send others as FP32.")
    return values.astype(kind)


def _saved(image: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return buffer.getvalue()
