"""Any ``torch.nn.Module`` from images to one tensor, as an object or from a factory ``package.module:factory``."""

from __future__ import annotations

import copy
import importlib
import os
import re
import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from elude.exporter.models.loaded import LoadedModel, weights_sha256
from elude.exporter.models.one_output import choose, selecting
from elude.exporter.models.options import ModelOptions, output_meaning
from elude.exporter.models.standardised import as_plain
from elude.exporter.models.trial import try_out
from elude.handlers.bundle.bundle import Source
from elude.handlers.errors import UsageError

OBJECT = "object:"
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_factory(name: str) -> bool:
    """Whether a name reads ``package.module:factory``."""
    return _FACTORY.fullmatch(name) is not None


def module_name(module: nn.Module) -> str:
    """The name of a model that was handed over as an object."""
    return f"{OBJECT}{type(module).__module__}.{type(module).__qualname__}"


def from_module(
    module: nn.Module,
    options: ModelOptions,
    name: str | None = None,
    revision: str = "",
    *,
    stated: ModelOptions = ModelOptions(),
) -> LoadedModel:
    """A loaded model of a module, which itself is not changed.

    Args:
        module: from (N, C, H, W) to a tensor, or to several, of which ``options`` names one.
        options: preprocessing and labels or kind are needed.
        name: where it came from; by default that of its class.
        revision: of it.
        stated: what is known of it where ``options`` say nothing.

    Raises:
        UsageError: something must be said, and says what.
        UnsupportedLayerError: it does not run on images of the size that the preprocessing gives.
    """
    name = options.address(name or module_name(module))
    options = options.over(stated)
    if options.preprocess is None:
        raise UsageError(
            f"It is not known how {name} wants its images.",
            "Give the preprocessing: size, resizing, mean and std, as in a bundle's preprocess.json.",
        )
    try:
        own = copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"{name} cannot be copied: {error}.", "Detach tensors that are kept in it.") from error
    own = own.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    return finish(own, options, Source(name, revision, type(module).__name__, ""))


def finish(module: nn.Module, options: ModelOptions, source: Source) -> LoadedModel:
    """Choose the output, settle what it means, and take the weights' hash.

    Args:
        module: in eval mode, ours to adapt.
        options: with preprocessing.
        source: without hash.

    Raises:
        UsageError: the meaning of the outputs is not said, or labels do not fit.
    """
    assert options.preprocess is not None
    returned = try_out(module, options.preprocess.input_size, {}).output
    select = choose(returned, options, source.model)
    outputs: Tensor = select(returned)
    kind, labels = output_meaning(options, outputs.shape[1], source.model)
    source = replace(source, weights_sha256=weights_sha256(module))  # of the weights as they were trained
    return LoadedModel(selecting(as_plain(module), select), options.preprocess, labels, source, kind)


def from_factory(name: str, options: ModelOptions) -> LoadedModel:
    """Call ``package.module:factory``, with the current folder on the path, and load what it returns.

    Raises:
        UsageError: there is no such module or factory, it fails, or it returns neither a module nor a ``LoadedModel``.
    """
    made = _call(name)
    if isinstance(made, LoadedModel):
        stated = ModelOptions(kind=made.kind, preprocess=made.preprocess, labels=made.labels)
        return from_module(made.module, options, name, made.source.revision, stated=stated)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{name} returned a {type(made).__name__}.", "It must return a torch.nn.Module.")
    return from_module(made, options, name)


def _call(name: str) -> Any:
    path, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value: Any = importlib.import_module(path)
    except ImportError as error:
        raise UsageError(
            f"{name}: the module {path!r} cannot be imported: {error}.", "Install it, or run from its folder."
        ) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UsageError(f"{path} has no {attribute!r}.", "Write package.module:factory.")
        value = getattr(value, part)
    if not callable(value) or isinstance(value, nn.Module):
        return value
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return value()
    except Exception as error:
        raise UsageError(
            f"{name}() failed: {type(error).__name__}: {error}.", "It is called without arguments."
        ) from error
