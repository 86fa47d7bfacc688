"""Makes ``import torchvision`` work where its compiled operators do not fit the installed torch. Import before timm.

The torchvision on PyPI is built against the CUDA torch; beside a CPU-only torch its operators fail
to load and the import dies with "operator torchvision::nms does not exist" (pytorch/vision #9085).
timm needs only its transforms, which use none of these operators, so it is enough that the two
names that are looked up at import exist.
"""

from __future__ import annotations

import importlib
import sys

import torch

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _import_torchvision() -> torch.library.Library | None:
    """Import torchvision; declare the missing operators only when the native import fails.

    Returns:
        The library that owns the declarations, which must be kept alive as they vanish with it;
        None when torchvision imported by itself.

    Raises:
        RuntimeError: torchvision cannot be imported for another reason.
        ImportError: torchvision is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in _OPERATORS:
        library.define(operator + _SIGNATURE)  # type: ignore[no-untyped-call]
    # The failed attempt leaves half-initialised submodules behind: forget them, so that the next import starts afresh.
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    importlib.import_module("torchvision")
    return library


DECLARED = _import_torchvision()
