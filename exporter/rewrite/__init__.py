"""The rewrites of a split model: ``graft`` and ``explicit``, and ``bake`` for edits that become weights."""

from exporter.rewrite.bake import bake
from exporter.rewrite.explicit import explicit
from exporter.rewrite.graft import graft
from exporter.rewrite.twin import Disentangled

__all__ = ["Disentangled", "bake", "explicit", "graft"]
