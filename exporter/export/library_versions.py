"""Versions of installed libraries, to be kept with what they made."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def installed(names: Iterable[str]) -> dict[str, str]:
    """Distribution to version, in the order of ``names``; what is not installed is left out.

    Missing ones are expected: onnxruntime-gpu stands in for onnxruntime, and elude may run from its folder.
    """
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
