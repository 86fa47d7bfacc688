"""What strangers type first, and what to type instead."""

from __future__ import annotations

from collections.abc import Mapping


def no_attribute(owner: str, name: str, instead: Mapping[str, str]) -> AttributeError:
    """The error of a name that is not there, with what to type where its meaning is clear.

    Args:
        owner: what was asked, e.g. ``module 'elude'``.
        name: of the attribute.
        instead: from names that are tried to a sentence.
    """
    return AttributeError(f"{owner} has no attribute {name!r}. {instead.get(name, '')}".rstrip())
