"""The plain graph with the place of each split layer in it, made and checked before anything expensive is done.

Two ways of exporting that fail for some models are tried first, as their graphs are the fastest, and given up with a
note: the exporter's optimiser (it leaves an invalid graph behind for a few models) and fused attention (the exporter
does not know it for every number of axes).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError
from torch import nn

from elude.exporter.graph.plain import plain_export
from elude.exporter.graph.site import OPSET, Prepared, Site
from elude.handlers.errors import UnsupportedLayerError, UsageError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
OPSET_BFLOAT16 = 22
UNFUSED = "exported with fused attention off, as ONNX has no form of it for this model; equal within rounding"
NOT_OPTIMISED = "exported without the exporter's optimiser, which left an invalid graph"


def prepare_graph(
    module: nn.Module,
    layers: Sequence[str],
    input_size: tuple[int, int, int],
    *,
    output: str = "logits",
    opset: int | None = None,
    dtype: str = "float32",
    dynamic_size: bool = False,
) -> Prepared:
    """Export the plain graph, find the layers and check the file.

    Args:
        module: in eval mode, float32.
        layers: paths of the layers that will be split.
        input_size: (channels, H, W).
        output: name of the graph's output.
        opset: ONNX operator set, default 18, and 22 for bfloat16.
        dtype: one of ``DTYPES``.
        dynamic_size: leave the image's height and width open.

    Raises:
        UsageError: the opset is too low or the dtype unknown.
        UnsupportedLayerError: the model cannot be exported, a layer is not in the graph exactly once, or how it pads
            depends on the size of the image.
    """
    number = _opset(opset, dtype)

    def export(optimise: bool = True) -> tuple[ir.Model, list[Site]]:
        return plain_export(
            module,
            input_size,
            layers=layers,
            output=output,
            opset=number,
            dtype=DTYPES[dtype],
            dynamic_size=dynamic_size,
            optimise=optimise,
        )

    notes: list[str] = []
    try:
        model, sites = export()
    except UnsupportedLayerError:
        if not _fused(module):
            raise
        with _unfused(module):
            model, sites = export()
        notes.append(UNFUSED)
    if _invalid(model):
        with _unfused(module) if notes else _as_it_is():
            model, sites = export(optimise=False)
        if reason := _invalid(model):
            raise UnsupportedLayerError(f"The model's ONNX graph is invalid: {reason}")
        notes.append(NOT_OPTIMISED)
    for site in sites:
        _check_padding(site)
    return Prepared(model, tuple(sites), dtype, tuple(notes))


def _opset(opset: int | None, dtype: str) -> int:
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}.", f"Use one of {', '.join(DTYPES)}.")
    lowest = OPSET_BFLOAT16 if dtype == "bfloat16" else OPSET
    if opset is not None and opset < lowest:
        why = (
            "Convolutions take bfloat16 from 22 on."
            if dtype == "bfloat16"
            else "Bit operations and the addition of ScatterElements need 18."
        )
        raise UsageError(f"opset {opset} is below {lowest}.", why)
    return opset or lowest


def _check_padding(site: Site) -> None:
    padding = site.product.attributes.get_string("auto_pad", "NOTSET")
    if padding != "NOTSET":
        raise UnsupportedLayerError(f"{site.name}: padding {padding} depends on the image size.")


def _fused(module: nn.Module) -> list[nn.Module]:
    """The modules that use fused attention, by timm's convention."""
    return [part for part in module.modules() if vars(part).get("fused_attn") is True]


@contextmanager
def _unfused(module: nn.Module) -> Iterator[None]:
    parts = _fused(module)
    for part in parts:
        vars(part)["fused_attn"] = False
    try:
        yield
    finally:
        for part in parts:
            vars(part)["fused_attn"] = True


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def _invalid(model: ir.Model) -> str:
    """Why a graph is invalid; empty when it is valid."""
    with tempfile.TemporaryDirectory() as folder:  # as files: a serialised model ends at 2 GiB
        path = Path(folder) / "model.onnx"
        try:
            ir.save(model, path, external_data="model.onnx.data")
            onnx.checker.check_model(str(path), full_check=True)
        except (ValidationError, InferenceError, ValueError) as error:
            return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ""
