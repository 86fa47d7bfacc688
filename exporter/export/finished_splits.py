"""Finished splits in the work folder: clustering may take hours, and an error after it must not lose them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elude.exporter.splitting.layer_split import LayerSplit
from elude.exporter.splitting.split_file import load_splits, save_splits
from elude.handlers.files import replace_file


def split_once(
    path: Path, key: dict[str, Any], split: Callable[[], tuple[LayerSplit, LayerSplit]]
) -> tuple[LayerSplit, LayerSplit]:
    """The split at ``path`` and its control, if made for the same ``key``; else new ones, which are put there.

    Args:
        path: a ``.safetensors`` file; its key lies beside it as ``.json``.
        key: everything that the split depends on, as JSON.
        split: makes it.
    """
    text, beside = json.dumps(key, sort_keys=True), path.with_suffix(".json")
    control = path.with_suffix(".control")
    if beside.is_file() and path.is_file() and control.is_file() and beside.read_text("utf-8") == text:
        return load_splits(path)[0], load_splits(control)[0]
    beside.unlink(missing_ok=True)
    result = split()
    save_splits(result[:1], path)
    save_splits(result[1:], control)
    replace_file(beside, text.encode())
    return result
