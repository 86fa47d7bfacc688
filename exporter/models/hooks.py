"""Watch modules while a model runs: the one place where hooks are put on and taken off again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

Record = Callable[[str, nn.Module, Any, Any], None]


@contextmanager
def watching(modules: Mapping[str, nn.Module], record: Record) -> Iterator[None]:
    """While inside, call ``record(name, module, inputs, output)`` after each call of each module."""
    handles = [module.register_forward_hook(partial(record, name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
