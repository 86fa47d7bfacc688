"""The rewrites of a split model: ``graft`` and ``explicit``, and ``bake`` for edits that become weights."""

from elude.exporter.rewrite.bake import bake
from elude.exporter.rewrite.explicit import explicit
from elude.exporter.rewrite.graft import graft
from elude.exporter.rewrite.twin import Disentangled

__all__ = ["Disentangled", "bake", "explicit", "graft"]
