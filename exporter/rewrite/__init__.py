"""The rewrites of a split model: ``graft`` and ``explicit``."""

from elude.exporter.rewrite.explicit import explicit
from elude.exporter.rewrite.graft import graft
from elude.exporter.rewrite.twin import Disentangled

__all__ = ["Disentangled", "explicit", "graft"]
